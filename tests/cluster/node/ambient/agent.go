package ambient

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"syscall"
	"time"

	"k8s.io/klog/v2"
)

// ackTimeout bounds the wait for ztunnel's answer to one message.
const ackTimeout = 10 * time.Second

// ErrNoZtunnel: no ztunnel is connected. A pod that should be enrolled waits.
var ErrNoZtunnel = errors.New("no ztunnel is connected to the node agent")

// Agent is the node agent of one node.
type Agent struct {
	mutex sync.Mutex
	pods  map[string]Pod
	// connections of ztunnels, the newest last; two during an upgrade.
	connections []*connection
	seen        bool
}

// connection to one ztunnel. Its mutex orders messages and acknowledgements.
type connection struct {
	mutex sync.Mutex
	conn  *net.UnixConn
}

// NewAgent listens on the node-agent socket at path, in a new goroutine.
func NewAgent(path string) (*Agent, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	// Names of sockets are at most 107 bytes long: bind by way of the open
	// directory.
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	short := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	listener, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: short, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	listener.SetUnlinkOnClose(false)
	a := &Agent{pods: map[string]Pod{}}
	go a.accept(listener)
	return a, os.Chmod(path, 0o666)
}

func (a *Agent) accept(listener *net.UnixListener) {
	for {
		conn, err := listener.AcceptUnix()
		if err != nil {
			klog.Errorf("node agent: %v", err)
			return
		}
		go a.serve(&connection{conn: conn})
	}
}

// serve greets a ztunnel and sends all pods. The lock is held until the
// snapshot is complete, so that no pod is added or removed meanwhile.
func (a *Agent) serve(c *connection) {
	defer c.conn.Close()
	hello := make([]byte, 256)
	n, err := c.conn.Read(hello)
	if err == nil {
		err = parseHello(hello[:n])
	}
	if err != nil {
		klog.Errorf("node agent: greeting: %v", err)
		return
	}
	if err := a.snapshot(c); err != nil {
		klog.Errorf("node agent: snapshot: %v", err)
		return
	}
	klog.Infof("node agent: ztunnel connected")
	a.watch(c)
	a.drop(c)
	klog.Infof("node agent: ztunnel disconnected")
}

func (a *Agent) snapshot(c *connection) error {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	uids := make([]string, 0, len(a.pods))
	for uid := range a.pods {
		uids = append(uids, uid)
	}
	sort.Strings(uids)
	for _, uid := range uids {
		if err := c.add(a.pods[uid]); err != nil {
			return err
		}
	}
	if err := c.call(snapshotRequest(), nil); err != nil {
		return err
	}
	a.connections, a.seen = append(a.connections, c), true
	return nil
}

// watch returns when the connection is closed. ztunnel speaks only when
// spoken to, so looking for the end takes nothing from a call.
func (a *Agent) watch(c *connection) {
	raw, err := c.conn.SyscallConn()
	if err != nil {
		return
	}
	for {
		time.Sleep(100 * time.Millisecond)
		over := false
		c.mutex.Lock()
		failed := raw.Read(func(fd uintptr) bool {
			var one [1]byte
			n, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
			over = (n == 0 && err == nil) || (err != nil && err != syscall.EAGAIN && err != syscall.EINTR)
			return true
		})
		c.mutex.Unlock()
		if over || failed != nil {
			return
		}
	}
}

func (a *Agent) drop(c *connection) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	for i, other := range a.connections {
		if other == c {
			a.connections = append(a.connections[:i:i], a.connections[i+1:]...)
			return
		}
	}
}

// Enrolled says whether the pod is in the mesh.
func (a *Agent) Enrolled(uid string) bool {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	_, ok := a.pods[uid]
	return ok
}

// Active says whether a ztunnel has ever connected.
func (a *Agent) Active() bool {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return a.seen
}

// Add redirects the pod's traffic and hands it to ztunnel; it returns when
// ztunnel has taken it. Adding a pod twice does nothing.
func (a *Agent) Add(p Pod) error {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if _, ok := a.pods[p.UID]; ok {
		return nil
	}
	if len(a.connections) == 0 {
		return ErrNoZtunnel
	}
	if err := redirect(p.NetNS); err != nil {
		return err
	}
	if err := a.connections[len(a.connections)-1].add(p); err != nil {
		return err
	}
	a.pods[p.UID] = p
	return nil
}

// Remove takes a pod out of the mesh. With keepRunning its traffic is no longer
// redirected; else its network namespace is about to go away.
func (a *Agent) Remove(uid string, keepRunning bool) error {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	p, ok := a.pods[uid]
	if !ok {
		return nil
	}
	if keepRunning {
		if err := restore(p.NetNS); err != nil {
			return err
		}
	}
	delete(a.pods, uid)
	for _, c := range a.connections {
		if err := c.call(deleteRequest(uid), nil); err != nil {
			klog.Warningf("node agent: remove %s/%s: %v", p.Namespace, p.Name, err)
		}
	}
	return nil
}

func (c *connection) add(p Pod) error {
	namespace, err := os.Open(p.NetNS)
	if err != nil {
		return err
	}
	defer namespace.Close()
	return c.call(addRequest(p), syscall.UnixRights(int(namespace.Fd())))
}

// call sends one message and waits for the answer. ztunnel reports a pod that
// it could not start yet as an error and tries again by itself: no error here.
func (c *connection) call(request, rights []byte) error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	_ = c.conn.SetDeadline(time.Now().Add(ackTimeout))
	defer func() { _ = c.conn.SetDeadline(time.Time{}) }()
	if _, _, err := c.conn.WriteMsgUnix(request, rights, nil); err != nil {
		_ = c.conn.Close()
		return err
	}
	reply := make([]byte, 4096)
	n, err := c.conn.Read(reply)
	if err != nil {
		// A late answer would be taken for that of the next message.
		_ = c.conn.Close()
		return err
	}
	problem, err := parseAck(reply[:n])
	if problem != "" {
		klog.Infof("node agent: ztunnel says: %s", problem)
	}
	return err
}
