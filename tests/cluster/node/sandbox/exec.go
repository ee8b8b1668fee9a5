package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Exec runs one more command in a running container: `node-exec SPEC PID
// [-t] COMMAND…`, where PID is the container's init. With -t standard input is
// a terminal that the command gets as its own.
func Exec(args []string) int {
	runtime.LockOSThread()
	if len(args) < 3 {
		return fail(errors.New("usage: " + ExecCommand + " SPEC PID [-t] COMMAND..."))
	}
	spec, err := Read(args[0])
	if err != nil {
		return fail(err)
	}
	pid, err := strconv.Atoi(args[1])
	if err != nil {
		return fail(err)
	}
	argv, terminal := args[2:], false
	if argv[0] == "-t" {
		argv, terminal = argv[1:], true
		spec.Env = append(spec.Env, "TERM=xterm")
	}
	if err := enter(pid); err != nil {
		return fail(err)
	}
	// No death signal here: its parent is invisible from inside the container.
	attr := &syscall.SysProcAttr{Setsid: terminal, Setctty: terminal}
	child, err := start(spec, argv, []*os.File{os.Stdin, os.Stdout, os.Stderr}, attr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 126
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	go func() {
		<-signals
		_ = child.Kill()
	}()
	state, err := child.Wait()
	if err != nil {
		return fail(err)
	}
	return exitCode(state.Sys().(syscall.WaitStatus))
}

// enter moves the calling thread into the namespaces of a process. All are
// opened first: the thread loses sight of /proc when it changes its root.
func enter(pid int) error {
	kinds := []struct {
		name string
		flag int
	}{
		{"net", unix.CLONE_NEWNET}, {"uts", unix.CLONE_NEWUTS}, {"ipc", unix.CLONE_NEWIPC},
		{"pid", unix.CLONE_NEWPID}, {"mnt", unix.CLONE_NEWNS},
	}
	files := make([]int, len(kinds))
	for i, kind := range kinds {
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, kind.name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("the container is gone: %w", err)
		}
		files[i] = fd
	}
	// A thread that shares its root with others may not change mount namespaces.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	for i, kind := range kinds {
		if err := unix.Setns(files[i], kind.flag); err != nil {
			return fmt.Errorf("enter %s namespace: %w", kind.name, err)
		}
	}
	return nil
}
