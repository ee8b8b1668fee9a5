package node

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
)

// stopAll ends every container: the main ones together, then the sidecars from
// the last to the first. All share the grace period; a shorter one that is set
// later (kubectl delete --force) counts.
func (w *worker) stopAll(grace time.Duration) {
	begin := time.Now()
	remaining := func() time.Duration {
		if w.isGone() {
			return time.Second
		}
		return grace - time.Since(begin)
	}
	var all sync.WaitGroup
	for _, c := range w.containers {
		if c.role != roleSidecar {
			all.Add(1)
			go func() {
				defer all.Done()
				w.stop(c, remaining)
			}()
		}
	}
	all.Wait()
	for i := len(w.containers) - 1; i >= 0; i-- {
		if w.containers[i].role == roleSidecar {
			w.stop(w.containers[i], remaining)
		}
	}
}

func (w *worker) isGone() bool {
	_, gone := w.current()
	return gone
}

// stop runs the preStop hook, sends SIGTERM, and SIGKILL when time is up.
func (w *worker) stop(c *container, remaining func() time.Duration) {
	w.mutex.Lock()
	p := c.proc
	w.mutex.Unlock()
	if p == nil {
		return
	}
	if c.spec.Lifecycle != nil && c.spec.Lifecycle.PreStop != nil {
		ctx, cancel := context.WithTimeout(context.Background(), max(remaining(), time.Second))
		if err := w.hook(ctx, c, p, c.spec.Lifecycle.PreStop); err != nil && !p.ended() {
			w.event(v1.EventTypeWarning, "FailedPreStopHook", err.Error())
		}
		cancel()
	}
	p.signal(syscall.SIGTERM)
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for {
		select {
		case <-p.done:
			return
		case <-poll.C:
			if remaining() <= 0 || w.isGone() {
				p.signal(syscall.SIGKILL)
				<-p.done
				return
			}
		}
	}
}

// postStart runs the hook beside the container; a failure ends the container.
func (w *worker) postStart(c *container, p *process) {
	if c.spec.Lifecycle == nil || c.spec.Lifecycle.PostStart == nil {
		return
	}
	go func() {
		if err := w.hook(context.Background(), c, p, c.spec.Lifecycle.PostStart); err != nil {
			w.event(v1.EventTypeWarning, "FailedPostStartHook", err.Error())
			p.signal(syscall.SIGKILL)
		}
	}()
}

// hook runs a lifecycle handler.
func (w *worker) hook(ctx context.Context, c *container, p *process, h *v1.LifecycleHandler) error {
	switch {
	case h.Exec != nil:
		out, code, err := w.node.output(ctx, p, h.Exec.Command)
		if err == nil && code != 0 {
			err = fmt.Errorf("exit code %d: %s", code, out)
		}
		return err
	case h.Sleep != nil:
		select {
		case <-time.After(time.Duration(h.Sleep.Seconds) * time.Second):
		case <-p.done:
		case <-ctx.Done():
		}
		return nil
	case h.HTTPGet != nil:
		request, err := w.request(ctx, c, h.HTTPGet)
		if err != nil {
			return err
		}
		response, err := w.httpClient().Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode >= http.StatusBadRequest {
			return fmt.Errorf("%s answered %s", request.URL, response.Status)
		}
		return nil
	}
	klog.Infof("%s: lifecycle handler of an unknown kind", w.name())
	return nil
}
