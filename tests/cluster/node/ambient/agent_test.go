package ambient

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fakeZtunnel acknowledges what it is sent and passes it on.
func fakeZtunnel(t *testing.T, path string, received chan<- string, ack string) *net.UnixConn {
	t.Helper()
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("\x08\x01")); err != nil {
		t.Fatal(err)
	}
	go func() {
		data, control := make([]byte, 1024), make([]byte, 64)
		for {
			n, c, _, _, err := conn.ReadMsgUnix(data, control)
			if err != nil || n == 0 {
				close(received)
				return
			}
			text := string(data[:n])
			if c > 0 {
				messages, _ := syscall.ParseSocketControlMessage(control[:c])
				rights, _ := syscall.ParseUnixRights(&messages[0])
				_ = syscall.Close(rights[0])
				text += "+fd"
			}
			_, _ = conn.Write([]byte(ack))
			received <- text
		}
	}()
	return conn
}

func TestSnapshotThenChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("d", 60), "z.sock")
	agent, err := NewAgent(path)
	if err != nil {
		t.Fatal(err)
	}
	if agent.Active() || agent.Add(Pod{UID: "u"}) != ErrNoZtunnel {
		t.Fatal("nothing can be added before a ztunnel has come")
	}
	netns := filepath.Join(t.TempDir(), "netns")
	if err := os.WriteFile(netns, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	agent.pods["u"] = Pod{UID: "u", Namespace: "app", Name: "n", ServiceAccount: "s", NetNS: netns}
	// The name is too long for a socket: dial by way of a shorter one.
	short := filepath.Join(t.TempDir(), "s")
	if err := os.Symlink(path, short); err != nil {
		t.Fatal(err)
	}
	received := make(chan string, 8)
	conn := fakeZtunnel(t, short, received, "\x0a\x00")
	want := "\x0a\x10\x0a\x01u\x12\x0b\x0a\x01n\x12\x03app\x1a\x01s+fd"
	if got := <-received; got != want {
		t.Fatalf("add: %q, want %q", got, want)
	}
	if got := <-received; got != "\x1a\x00" {
		t.Fatalf("snapshot: %q", got)
	}
	for !agent.Active() {
		time.Sleep(time.Millisecond)
	}
	if err := agent.Remove("u", false); err != nil || agent.Enrolled("u") {
		t.Fatal(err)
	}
	if got := <-received; got != "\x12\x03\x12\x01u" {
		t.Fatalf("delete: %q", got)
	}
	_ = conn.Close()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if agent.Add(Pod{UID: "v"}) == ErrNoZtunnel {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the closed connection is still used")
		}
	}
}

func TestParse(t *testing.T) {
	if parseHello([]byte("\x08\x01")) != nil || parseHello([]byte("\x08\x02")) == nil || parseHello(nil) == nil || parseHello([]byte{8}) == nil {
		t.Error("hello")
	}
	if text, err := parseAck([]byte("\x0a\x00")); text != "" || err != nil {
		t.Error(text, err)
	}
	if text, err := parseAck([]byte("\x0a\x05\x0a\x03bad")); text != "bad" || err != nil {
		t.Error(text, err)
	}
	for _, rubbish := range []string{"", "\x12\x00", "\x0a\x07", "\x0a\x02\x10\x01"} {
		if _, err := parseAck([]byte(rubbish)); err == nil {
			t.Errorf("%q is no acknowledgement", rubbish)
		}
	}
}
