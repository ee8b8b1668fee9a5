package node

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"

	"ambientd/cluster/node/fabric"
	"ambientd/cluster/node/sandbox"
)

// role of a container in its pod.
type role int

const (
	roleSetup   role = iota // init container: runs to its end before the next
	roleSidecar             // init container that keeps running
	roleMain
)

// container is one container of a pod; its worker's mutex guards it.
type container struct {
	spec *v1.Container
	role role
	// proc is the running process, nil when there is none.
	proc *process
	// exit is how the newest ended run ended, prior the one before it.
	exit, prior *v1.ContainerStateTerminated
	restarts    int32
	runs        int
	startedAt   metav1.Time
	// started and ready: what the probes say (true without a probe).
	started, ready bool
	// notBefore is when the next start may be tried; delay is the time the one
	// after it waits.
	notBefore time.Time
	delay     time.Duration
	// reason and message say why a container that should run does not.
	reason, message string
}

const (
	firstDelay = time.Second
	maxDelay   = 10 * time.Second
)

// restartable says whether a container that ended is started again.
func (c *container) restartable(policy v1.RestartPolicy) bool {
	switch {
	case c.role == roleSidecar:
		return true
	case c.exit == nil:
		return true
	case c.role == roleSetup || policy == v1.RestartPolicyOnFailure:
		return c.exit.ExitCode != 0 && policy != v1.RestartPolicyNever
	}
	return policy == v1.RestartPolicyAlways
}

// process is one run of a container.
type process struct {
	cmd  *exec.Cmd
	spec string        // path of its sandbox.Spec
	done chan struct{} // closed when the process has ended
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// signal the container's init, which passes it on; SIGKILL ends all processes
// of the container.
func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// launch starts a run of the container. Called with the mutex held.
func (w *worker) launch(c *container) error {
	spec, err := w.sandboxSpec(c)
	if err != nil {
		return err
	}
	base := filepath.Join(w.dir, "containers", fmt.Sprintf("%s-%d", c.spec.Name, c.runs))
	spec.Scratch = base + ".root"
	if err := os.MkdirAll(spec.Scratch, 0o755); err != nil {
		return err
	}
	if err := spec.Write(base + ".json"); err != nil {
		return err
	}
	log, err := os.Create(w.logPath(c.spec.Name, c.runs))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(w.node.binary, sandbox.InitCommand, base+".json")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Setsid:     true,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := fabric.Do(w.namespace(), cmd.Start); err != nil {
		return err
	}
	c.proc = &process{cmd: cmd, spec: base + ".json", done: make(chan struct{})}
	c.runs++
	c.startedAt, c.reason, c.message = metav1.Now(), "", ""
	c.started = c.spec.StartupProbe == nil
	c.ready = c.started && c.spec.ReadinessProbe == nil
	go w.wait(c, c.proc)
	w.startProbes(c, c.proc)
	w.postStart(c, c.proc)
	return nil
}

// wait records the end of a run.
func (w *worker) wait(c *container, p *process) {
	_ = p.cmd.Wait()
	close(p.done)
	status, _ := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	code := status.ExitStatus()
	if status.Signaled() {
		code = 128 + int(status.Signal())
	}
	_ = os.Remove(strings.TrimSuffix(p.spec, ".json") + ".root")
	w.mutex.Lock()
	defer w.mutex.Unlock()
	reason := "Completed"
	if code != 0 {
		reason = "Error"
	}
	c.prior, c.exit = c.exit, &v1.ContainerStateTerminated{
		ExitCode: int32(code), Reason: reason, StartedAt: c.startedAt, FinishedAt: metav1.Now(),
		ContainerID: w.containerID(c),
	}
	if time.Since(c.startedAt.Time) > time.Minute || c.delay == 0 {
		c.delay = firstDelay
	}
	c.notBefore = time.Now().Add(c.delay)
	c.delay = min(2*c.delay, maxDelay)
	c.proc, c.started, c.ready = nil, false, false
	w.wake()
}

// containerID of the newest run.
func (w *worker) containerID(c *container) string {
	return fmt.Sprintf("node://%s-%s-%d", w.uid, c.spec.Name, c.runs-1)
}

// logPath is the file with the output of one run.
func (w *worker) logPath(name string, run int) string {
	return filepath.Join(w.dir, "logs", fmt.Sprintf("%s-%d.log", name, run))
}

// sandboxSpec collects everything for a run of the container.
func (w *worker) sandboxSpec(c *container) (*sandbox.Spec, error) {
	pod := w.described()
	image, err := w.node.config.Images.lookup(c.spec.Image, w.node.binary)
	if err != nil {
		return nil, waiting{"ImagePullBackOff", err.Error()}
	}
	env, values, err := environment(pod, c.spec, w.node, w.node.config.Env)
	if err != nil {
		return nil, waiting{"CreateContainerConfigError", err.Error()}
	}
	mounts, err := w.mounts(pod, c.spec, values)
	if err != nil {
		return nil, waiting{"CreateContainerConfigError", err.Error()}
	}
	expand := expansion.MappingFuncFor(values)
	command, args := expandAll(c.spec.Command, expand), expandAll(c.spec.Args, expand)
	uid, gid := userOf(pod, c.spec)
	return &sandbox.Spec{
		Hostname: w.hostname(pod), Mounts: append(image.mounts, mounts...), Env: env, Dir: c.spec.WorkingDir,
		Argv: commandLine(command, args, image, exists(image, mounts)), UID: uid, GID: gid,
	}, nil
}

// exists says whether a command is a program of the machine, of the image, or of
// a volume, where an earlier container may have put it.
func exists(p program, volumes []sandbox.Mount) func(string) bool {
	return func(command string) bool {
		for _, m := range p.mounts {
			if m.Target == command {
				return true
			}
		}
		for _, m := range volumes {
			if strings.HasPrefix(command, strings.TrimSuffix(m.Target, "/")+"/") {
				return true
			}
		}
		found, err := exec.LookPath(command)
		return err == nil && found != ""
	}
}

func expandAll(words []string, mapping func(string) string) []string {
	out := make([]string, len(words))
	for i, word := range words {
		out[i] = expansion.Expand(word, mapping)
	}
	return out
}

// nonRoot is the user of images that must not run as root and name no user.
const nonRoot = 65532

// userOf is the user and group of a container; root when nothing is said.
func userOf(pod *v1.Pod, c *v1.Container) (uid, gid uint32) {
	mustNot := false
	if s := pod.Spec.SecurityContext; s != nil {
		uid, gid, mustNot = number(s.RunAsUser, 0), number(s.RunAsGroup, 0), isTrue(s.RunAsNonRoot)
	}
	if s := c.SecurityContext; s != nil {
		uid, gid = number(s.RunAsUser, uid), number(s.RunAsGroup, gid)
		if s.RunAsNonRoot != nil {
			mustNot = *s.RunAsNonRoot
		}
	}
	if uid == 0 && mustNot {
		uid = nonRoot
	}
	return uid, gid
}

func number(value *int64, otherwise uint32) uint32 {
	if value == nil {
		return otherwise
	}
	return uint32(*value)
}

// mounts are the volume mounts of a container and the files every pod has.
func (w *worker) mounts(pod *v1.Pod, c *v1.Container, values map[string]string) ([]sandbox.Mount, error) {
	out := []sandbox.Mount{
		{Source: filepath.Join(w.dir, "hosts"), Target: "/etc/hosts"},
		{Source: filepath.Join(w.dir, "resolv.conf"), Target: "/etc/resolv.conf"},
	}
	for _, m := range c.VolumeMounts {
		source := ""
		for i := range pod.Spec.Volumes {
			if pod.Spec.Volumes[i].Name == m.Name {
				source = w.volumes.path(&pod.Spec.Volumes[i])
			}
		}
		if source == "" {
			return nil, fmt.Errorf("volume %q not found", m.Name)
		}
		sub := m.SubPath
		if m.SubPathExpr != "" {
			sub = expansion.Expand(m.SubPathExpr, expansion.MappingFuncFor(values))
		}
		if sub != "" {
			source = filepath.Join(source, filepath.Clean("/"+sub))
			if _, err := os.Stat(source); os.IsNotExist(err) {
				if err := os.MkdirAll(source, 0o777); err != nil {
					return nil, err
				}
			}
		}
		out = append(out, sandbox.Mount{Source: source, Target: m.MountPath, ReadOnly: m.ReadOnly})
	}
	return out, nil
}

// waiting is an error with the reason that a container status shows.
type waiting struct{ reason, message string }

func (w waiting) Error() string { return w.reason + ": " + w.message }
