// Package fabric makes the network of a node: one network namespace per pod,
// each joined by a veth pair to the namespace in which the node processes and
// kube-proxy run ("the fabric"), point to point and routed.
package fabric

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// namespaceDir is where `ip netns` keeps named namespaces.
const namespaceDir = "/run/netns/"

// Path is the file of a named network namespace.
func Path(namespace string) string { return namespaceDir + namespace }

// enteredVariable marks the process that Enter has started.
const enteredVariable = "NODE_INSIDE_FABRIC"

// Enter moves the whole process into a named network namespace. Only threads
// can move, so the process starts anew from a thread that has.
func Enter(namespace string) error {
	if os.Getenv(enteredVariable) == namespace {
		return os.Unsetenv(enteredVariable)
	}
	runtime.LockOSThread()
	if err := setns(Path(namespace)); err != nil {
		return err
	}
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	return syscall.Exec(binary, os.Args, append(os.Environ(), enteredVariable+"="+namespace))
}

func setns(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", path, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	return nil
}

// Do calls f on a thread inside the network namespace; "" is the fabric
// itself. Sockets opened and processes started by f belong to the namespace.
func Do(namespace string, f func() error) error {
	if namespace == "" {
		return f()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(home)
	if err := setns(Path(namespace)); err != nil {
		return err
	}
	failed := f()
	if err := unix.Setns(home, unix.CLONE_NEWNET); err != nil {
		// A thread in a wrong namespace must never be used again.
		panic(fmt.Sprintf("return from network namespace %s: %v", namespace, err))
	}
	return failed
}

// Dial connects from inside the network namespace to an address of it.
func Dial(ctx context.Context, namespace, address string) (conn net.Conn, err error) {
	err = Do(namespace, func() error {
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", address)
		return err
	})
	return conn, err
}

// Run executes a command and gives its output as part of the error.
func Run(input string, argv ...string) error {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
