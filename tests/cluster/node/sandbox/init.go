package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sort"
	"syscall"

	"golang.org/x/sys/unix"
)

// oldRoot is where the machine's root stays reachable while mounts are made.
const oldRoot = "/.machine"

// Init runs as process 1 of a container: it builds the root file system, starts
// the command, forwards signals to it, reaps orphans and exits as the command
// does (128+n for signal n).
func Init(args []string) int {
	runtime.LockOSThread()
	if len(args) != 1 {
		return fail(errors.New("usage: " + InitCommand + " SPEC"))
	}
	spec, err := Read(args[0])
	if err != nil {
		return fail(err)
	}
	if err := unix.Sethostname([]byte(spec.Hostname)); err != nil {
		return fail(err)
	}
	if err := buildRoot(spec); err != nil {
		return fail(err)
	}
	// Before the command starts, so that no signal is lost.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals)
	child, err := start(spec, spec.Argv, []*os.File{os.Stdin, os.Stdout, os.Stderr}, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL})
	if err != nil {
		return fail(err)
	}
	go func() {
		for s := range signals {
			if s != syscall.SIGCHLD && s != syscall.SIGURG && s != syscall.SIGPIPE {
				_ = child.Signal(s)
			}
		}
	}()
	return reap(child.Pid)
}

// reap waits for every child until the one with the given id has ended.
func reap(pid int) int {
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return fail(err)
		case got == pid:
			return exitCode(status)
		}
	}
}

func exitCode(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

// start runs a command as the container's user, in the namespaces of the
// calling thread.
func start(spec *Spec, argv []string, files []*os.File, attr *syscall.SysProcAttr) (*os.Process, error) {
	if len(argv) == 0 {
		return nil, errors.New("no command")
	}
	program, err := lookPath(argv[0], spec.Env)
	if err != nil {
		return nil, err
	}
	dir := spec.Dir
	if dir == "" {
		dir = "/"
	}
	if spec.UID != 0 || spec.GID != 0 {
		attr.Credential = &syscall.Credential{Uid: spec.UID, Gid: spec.GID, Groups: spec.Groups}
	}
	return os.StartProcess(program, argv, &os.ProcAttr{Dir: dir, Env: spec.Env, Files: files, Sys: attr})
}

// buildRoot makes the machine's root, covered by a writable memory file system,
// the root of this mount namespace: what a container writes is gone with it.
func buildRoot(spec *Spec) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", spec.Scratch, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount %s: %w", spec.Scratch, err)
	}
	root := filepath.Join(spec.Scratch, "root")
	for _, dir := range []string{"upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(spec.Scratch, dir), 0o755); err != nil {
			return err
		}
	}
	layers := fmt.Sprintf("lowerdir=/,upperdir=%[1]s/upper,workdir=%[1]s/work", spec.Scratch)
	if err := unix.Mount("overlay", root, "overlay", 0, layers); err != nil {
		return fmt.Errorf("mount overlay (the kernel needs overlayfs): %w", err)
	}
	if err := os.MkdirAll(root+oldRoot, 0o700); err != nil {
		return err
	}
	if err := unix.PivotRoot(root, root+oldRoot); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := systemMounts(); err != nil {
		return err
	}
	if err := bindAll(spec.Mounts); err != nil {
		return err
	}
	if err := unix.Unmount(oldRoot, unix.MNT_DETACH); err != nil {
		return err
	}
	return os.Remove(oldRoot)
}

func systemMounts() error {
	if err := os.MkdirAll("/dev", 0o755); err != nil {
		return err
	}
	if err := unix.Mount(oldRoot+"/dev", "/dev", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind /dev: %w", err)
	}
	// A machine where the host's /sys is locked gives an older view: harmless.
	_ = unix.Mount("sysfs", "/sys", "sysfs", unix.MS_RDONLY, "")
	for _, m := range []struct{ kind, dir, options string }{
		{"proc", "/proc", ""},
		{"tmpfs", "/dev/shm", "mode=1777"},
		{"tmpfs", "/run", "mode=0755"},
		{"tmpfs", "/tmp", "mode=1777"},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, m.options); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	return nil
}

// bindAll binds the shorter targets first, so that a mount inside another one
// is not hidden by it.
func bindAll(mounts []Mount) error {
	mounts = append([]Mount(nil), mounts...)
	sort.SliceStable(mounts, func(i, j int) bool { return len(mounts[i].Target) < len(mounts[j].Target) })
	for _, m := range mounts {
		if err := bind(m); err != nil {
			return fmt.Errorf("mount %s: %w", m.Target, err)
		}
	}
	return nil
}

func bind(m Mount) error {
	source, target := oldRoot+m.Source, filepath.Clean(m.Target)
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if info.IsDir() {
		err = os.MkdirAll(target, 0o755)
	} else {
		err = makeFile(target)
	}
	if err != nil {
		return err
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if m.ReadOnly {
		return unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
	}
	return nil
}

// makeFile creates a file to mount over; a symbolic link (such as
// /etc/resolv.conf on many machines) gives way to it.
func makeFile(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSymlink != 0 {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return err
	}
	return file.Close()
}
