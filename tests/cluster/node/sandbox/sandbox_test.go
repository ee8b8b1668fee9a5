package sandbox

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// container starts this test binary as the init of a container, as the node
// does.
func container(t *testing.T, spec *Spec) (cmd *exec.Cmd, path string, out func() string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for namespaces and mounts")
	}
	dir := t.TempDir()
	spec.Scratch = filepath.Join(dir, "root")
	if err := os.Mkdir(spec.Scratch, 0o755); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "spec.json")
	if err := spec.Write(path); err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd = exec.Command("/proc/self/exe", InitCommand, path)
	cmd.Stdout, cmd.Stderr = file, file
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, path, func() string {
		text, _ := os.ReadFile(file.Name())
		return string(text)
	}
}

func TestWhatAContainerWritesStaysInside(t *testing.T) {
	volume := t.TempDir()
	if err := os.WriteFile(filepath.Join(volume, "key"), []byte("value\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	script := "hostname; id -u; cat /etc/none/there/key; echo x > /sandbox-test; ls /sandbox-test; ls /run; echo y > /etc/none/there/key; exit 7"
	cmd, _, out := container(t, &Spec{
		Hostname: "inside", Argv: []string{"sh", "-c", script}, UID: 0,
		Mounts: []Mount{{Source: volume, Target: "/etc/none/there", ReadOnly: true}},
	})
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 7 {
		t.Fatalf("exit code %d: %s", code, out())
	}
	if !strings.HasPrefix(out(), "inside\n0\nvalue\n/sandbox-test\n") || !strings.Contains(out(), "Read-only file system") {
		t.Errorf("output: %s", out())
	}
	for _, path := range []string{"/sandbox-test", "/etc/none", oldRoot} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s was left on the machine", path)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), volume) {
		t.Errorf("a mount was left: %v", err)
	}
}

func TestSignalsAndCommandsReachTheContainer(t *testing.T) {
	cmd, path, out := container(t, &Spec{
		Hostname: "inside", UID: 1234, GID: 5, Env: []string{"PATH=/usr/bin:/bin", "V=1"},
		Argv: []string{"sh", "-c", "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done"},
	})
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(out(), "up"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the command does not start: ", out())
		}
	}
	more, err := exec.Command("/proc/self/exe", ExecCommand, path, strconv.Itoa(cmd.Process.Pid), "sh", "-c", "hostname; id -u; echo $V; exit 4").CombinedOutput()
	if string(more) != "inside\n1234\n1\n" || err == nil || err.(*exec.ExitError).ExitCode() != 4 {
		t.Errorf("exec: %s %v", more, err)
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 3 || !strings.Contains(out(), "bye") {
		t.Errorf("exit code %d: %s", code, out())
	}
}
