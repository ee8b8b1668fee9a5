package run

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// fabric is the network namespace of one cluster and the thread that lives in it.
type fabric struct {
	jobs chan func()
}

// ip runs iproute2.
func ip(args ...string) (string, error) {
	output, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(output)))
	}
	return string(output), nil
}

// buildFabric makes the namespace, joins it to the host and routes the cluster's
// ranges into it.
func buildFabric(p Plan) error {
	in := func(args ...string) []string { return append([]string{"-n", p.Fabric}, args...) }
	steps := [][]string{
		{"netns", "add", p.Fabric},
		in("link", "set", "lo", "up"),
		{"link", "add", p.HostLink, "type", "veth", "peer", "name", p.FabricLink, "netns", p.Fabric},
		{"addr", "add", p.HostIP + "/30", "dev", p.HostLink},
		{"link", "set", p.HostLink, "up"},
		in("addr", "add", p.FabricIP+"/30", "dev", p.FabricLink),
		in("link", "set", p.FabricLink, "up"),
		// A connection to a service looks for a route before kube-proxy's rules see it.
		in("route", "add", p.ServiceCIDR, "dev", p.FabricLink),
		in("route", "add", p.LBRange, "dev", p.FabricLink),
		// Nothing leaves the machine, and what tries learns of it at once.
		in("route", "add", "unreachable", "default"),
		{"route", "add", p.PodCIDR, "via", p.FabricIP, "dev", p.HostLink},
		{"route", "add", p.ServiceCIDR, "via", p.FabricIP, "dev", p.HostLink},
	}
	for _, step := range steps {
		if _, err := ip(step...); err != nil {
			return err
		}
	}
	return nil
}

// enterFabric starts the thread that starts the parts. It never ends: parts die
// with the thread that started them, which so is our process.
func enterFabric(p Plan) (*fabric, error) {
	f := &fabric{jobs: make(chan func())}
	entered := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := enter(p.Fabric); err != nil {
			entered <- err
			return
		}
		entered <- os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)
		for job := range f.jobs {
			job()
		}
	}()
	return f, <-entered
}

func enter(name string) error {
	file, err := os.Open(filepath.Join("/run/netns", name))
	if err != nil {
		return err
	}
	defer file.Close()
	return unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
}

// start starts a process in the fabric that dies with us.
func (f *fabric) start(command *exec.Cmd) error {
	command.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL,
		// An interrupt at the terminal is ours to handle, not theirs.
		Setpgid: true,
	}
	done := make(chan error)
	f.jobs <- func() { done <- command.Start() }
	return <-done
}

// clean removes what a cluster in this slot left behind: processes, namespaces
// and with them links and routes. Nothing there is no error.
func clean(p Plan) error {
	names, err := namespaces(p)
	if err != nil {
		return err
	}
	var failed []error
	for _, name := range names {
		failed = append(failed, killAll(name))
	}
	for _, name := range names {
		_, err := ip("netns", "del", name)
		failed = append(failed, err)
	}
	if _, err := ip("link", "show", p.HostLink); err == nil {
		// The other end goes with its namespace, though not at once.
		_, _ = ip("link", "del", p.HostLink)
	}
	return errors.Join(failed...)
}

// namespaces are the cluster's, those of pods first.
func namespaces(p Plan) ([]string, error) {
	entries, err := os.ReadDir("/run/netns")
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var pods, fabric []string
	for _, entry := range entries {
		switch name := entry.Name(); {
		case name == p.Fabric:
			fabric = append(fabric, name)
		case strings.HasPrefix(name, p.Fabric+"-"):
			pods = append(pods, name)
		}
	}
	return append(pods, fabric...), nil
}

// killAll ends every process in a namespace and waits until they are gone.
func killAll(name string) error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		output, err := ip("netns", "pids", name)
		if err != nil {
			return err
		}
		pids := strings.Fields(output)
		remaining := 0
		for _, field := range pids {
			pid, err := strconv.Atoi(field)
			// The thread in the fabric is ours.
			if err != nil || pid == os.Getpid() {
				continue
			}
			remaining++
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if remaining == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("namespace %s keeps processes %v", name, pids)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
