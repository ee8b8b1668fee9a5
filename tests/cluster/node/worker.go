package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"ambientd/cluster/node/fabric"
)

// worker runs one pod: a loop that compares what should run with what does,
// started by every change of the pod, the end of a process, a probe's result
// and a timer. Only the loop starts and stops containers.
type worker struct {
	node *Node
	uid  types.UID
	// dir is <state>/pods/<uid>.
	dir     string
	volumes *volumes
	kick    chan struct{}
	// over: the loop has ended. Guarded by the node's mutex.
	over bool

	mutex sync.Mutex
	// pod as last seen; gone when it was removed without waiting for the node.
	pod  *v1.Pod
	gone bool
	// link and address are set once the network is there.
	link       *fabric.Link
	address    string
	containers []*container
	prepared   bool
	// initialized: all init containers have done their part.
	initialized bool
	finished    v1.PodPhase // set when no container will run again
	reason      string      // why the pod is not prepared
	message     string
	terminating bool
	sent        *v1.PodStatus
	refreshed   time.Time
}

func newWorker(n *Node, pod *v1.Pod) *worker {
	w := &worker{node: n, uid: pod.UID, pod: pod, kick: make(chan struct{}, 1), dir: n.podDir(pod.UID)}
	w.volumes = &volumes{
		dir: filepath.Join(w.dir, "volumes"), hostRoot: filepath.Join(n.config.StateDir, "hostpath"),
		hostPaths: n.config.HostPaths, src: n, token: n.requestToken, tokens: map[string]issued{},
	}
	for i := range pod.Spec.InitContainers {
		c := &container{spec: &pod.Spec.InitContainers[i], role: roleSetup}
		if p := c.spec.RestartPolicy; p != nil && *p == v1.ContainerRestartPolicyAlways {
			c.role = roleSidecar
		}
		w.containers = append(w.containers, c)
	}
	for i := range pod.Spec.Containers {
		w.containers = append(w.containers, &container{spec: &pod.Spec.Containers[i], role: roleMain})
	}
	return w
}

// wake makes the loop look again.
func (w *worker) wake() {
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// update gives the worker a newer pod, or nil when the pod is gone.
func (w *worker) update(pod *v1.Pod) {
	w.mutex.Lock()
	if pod == nil {
		w.gone = true
	} else {
		w.pod = pod
	}
	w.mutex.Unlock()
	w.wake()
}

func (w *worker) current() (pod *v1.Pod, gone bool) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.pod, w.gone
}

// run is the loop; it returns when nothing of the pod is left.
func (w *worker) run(ctx context.Context) {
	timer := time.NewTicker(time.Second)
	defer timer.Stop()
	for {
		pod, gone := w.current()
		switch {
		case ctx.Err() != nil:
			w.stopAll(time.Second)
			w.clean()
			return
		case gone || pod.DeletionTimestamp != nil:
			w.end(ctx)
			return
		case hasEnded(pod) && !w.launched():
			// Ended under an earlier process of this node.
		default:
			w.step(ctx)
			w.report(ctx)
		}
		select {
		case <-w.kick:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
}

func hasEnded(pod *v1.Pod) bool {
	return pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed
}

// step brings the pod one step nearer to what it should be.
func (w *worker) step(ctx context.Context) {
	if w.isFinished() {
		return
	}
	err := w.prepare(ctx)
	if err == nil {
		err = w.node.enroll(w)
	}
	// A pod that runs already keeps running while its enrolment is tried again.
	if err != nil && !w.launched() {
		w.mutex.Lock()
		changed := w.message != err.Error()
		w.reason, w.message = "ContainerCreating", err.Error()
		w.mutex.Unlock()
		if changed {
			klog.Infof("%s: %v", w.name(), err)
			w.event(v1.EventTypeWarning, "FailedCreatePodSandBox", err.Error())
		}
		return
	}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.reason, w.message = "", ""
	w.advance()
}

// launched says whether any container has been started.
func (w *worker) launched() bool {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return slices.ContainsFunc(w.containers, func(c *container) bool { return c.runs > 0 })
}

// advance starts what should run now. Called with the mutex held.
func (w *worker) advance() {
	policy := w.pod.Spec.RestartPolicy
	for _, c := range w.containers {
		if c.role == roleMain || (c.role == roleSetup && w.initialized) {
			continue
		}
		if c.role == roleSetup && c.exit != nil && c.exit.ExitCode == 0 {
			continue
		}
		w.ensure(c)
		if c.role == roleSetup && c.proc == nil && !c.restartable(policy) {
			w.finish(v1.PodFailed)
			return
		}
		if !w.initialized && (c.role == roleSetup || !c.started) {
			return
		}
	}
	w.initialized = true
	over, failed := true, false
	for _, c := range w.containers {
		if c.role != roleMain {
			continue
		}
		w.ensure(c)
		if c.proc != nil || c.restartable(policy) {
			over = false
		} else if c.exit.ExitCode != 0 {
			failed = true
		}
	}
	switch {
	case over && failed:
		w.finish(v1.PodFailed)
	case over:
		w.finish(v1.PodSucceeded)
	}
}

// ensure starts the container unless it runs, has ended for good or waits for
// its next try.
func (w *worker) ensure(c *container) {
	if c.proc != nil || !c.restartable(w.pod.Spec.RestartPolicy) {
		return
	}
	if time.Now().Before(c.notBefore) {
		if c.exit != nil && c.reason == "" {
			c.reason, c.message = "CrashLoopBackOff", "back-off restarting failed container "+c.spec.Name
			go w.event(v1.EventTypeWarning, "BackOff", c.message)
		}
		return
	}
	if err := w.launch(c); err != nil {
		problem := waiting{"RunContainerError", err.Error()}
		errors.As(err, &problem)
		if c.message != problem.message {
			go w.event(v1.EventTypeWarning, "Failed", problem.message)
		}
		c.reason, c.message = problem.reason, problem.message
		c.notBefore = time.Now().Add(firstDelay)
		return
	}
	if c.exit != nil {
		c.restarts++
	}
	go w.event(v1.EventTypeNormal, "Started", "Started container "+c.spec.Name)
}

func (w *worker) isFinished() bool {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.finished != ""
}

// finish notes that no main container will run again and stops the sidecars.
func (w *worker) finish(phase v1.PodPhase) {
	w.finished = phase
	go func() {
		w.stopAll(w.grace())
		w.dropNetwork()
		w.wake()
	}()
}

// end terminates the pod and deletes its object.
func (w *worker) end(ctx context.Context) {
	w.mutex.Lock()
	w.terminating = true
	w.mutex.Unlock()
	stopped := make(chan struct{})
	go func() {
		w.stopAll(w.grace())
		close(stopped)
	}()
	for waiting := true; waiting; {
		select {
		case <-stopped:
			waiting = false
		case <-w.kick:
			w.report(ctx)
		case <-ctx.Done():
			<-stopped
			waiting = false
		}
	}
	w.clean()
	if _, gone := w.current(); !gone {
		w.report(ctx)
		none, uid := int64(0), w.uid
		options := metav1.DeleteOptions{GracePeriodSeconds: &none, Preconditions: &metav1.Preconditions{UID: &uid}}
		pod, _ := w.current()
		if err := w.node.client.CoreV1().Pods(pod.Namespace).Delete(context.WithoutCancel(ctx), pod.Name, options); err != nil {
			klog.Infof("%s: delete: %v", w.name(), err)
		}
	}
}

// clean removes network and files.
func (w *worker) clean() {
	w.dropNetwork()
	if err := os.RemoveAll(w.dir); err != nil {
		klog.Warningf("%s: %v", w.name(), err)
	}
}

// grace is how long the pod may take to end.
func (w *worker) grace() time.Duration {
	pod, gone := w.current()
	seconds := int64(30)
	switch {
	case gone:
		seconds = 1
	case pod.DeletionGracePeriodSeconds != nil:
		seconds = *pod.DeletionGracePeriodSeconds
	case pod.Spec.TerminationGracePeriodSeconds != nil:
		seconds = *pod.Spec.TerminationGracePeriodSeconds
	}
	return time.Duration(max(seconds, 1)) * time.Second
}

func (w *worker) name() string {
	pod, _ := w.current()
	return pod.Namespace + "/" + pod.Name
}

func (w *worker) event(kind, reason, message string) {
	pod, _ := w.current()
	w.node.recorder.Event(pod, kind, reason, message)
}
