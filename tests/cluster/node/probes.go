package node

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/kubernetes/pkg/probe"
	grpcprobe "k8s.io/kubernetes/pkg/probe/grpc"
	httpprobe "k8s.io/kubernetes/pkg/probe/http"

	"ambientd/cluster/node/fabric"
)

// tally counts results of a probe in a row and knows when they matter.
type tally struct {
	success, failure int32 // thresholds
	good, bad        int32
}

func newTally(p *v1.Probe) *tally {
	return &tally{success: max(p.SuccessThreshold, 1), failure: max(p.FailureThreshold, 1)}
}

// add a result; passed or failed is true when its threshold is reached.
func (t *tally) add(ok bool) (passed, failed bool) {
	if ok {
		t.good, t.bad = t.good+1, 0
		return t.good >= t.success, false
	}
	t.good, t.bad = 0, t.bad+1
	return false, t.bad >= t.failure
}

// startProbes begins the probes of a run; each ends with the run.
func (w *worker) startProbes(c *container, p *process) {
	if s := c.spec.StartupProbe; s != nil {
		go w.probe(c, p, s, "Startup")
	}
	if s := c.spec.ReadinessProbe; s != nil {
		go w.probe(c, p, s, "Readiness")
	}
	if s := c.spec.LivenessProbe; s != nil {
		go w.probe(c, p, s, "Liveness")
	}
}

// probe repeats one probe until the run ends, or for a startup probe until it
// has passed.
func (w *worker) probe(c *container, p *process, spec *v1.Probe, kind string) {
	counts := newTally(spec)
	period := time.Duration(max(spec.PeriodSeconds, 1)) * time.Second
	// Soon after the start, then once per period: tests wait for readiness.
	wait := time.Duration(spec.InitialDelaySeconds)*time.Second + 100*time.Millisecond
	for {
		select {
		case <-p.done:
			return
		case <-time.After(wait):
		}
		wait = period
		if kind != "Startup" && !w.hasStarted(c) {
			wait = 100 * time.Millisecond
			continue
		}
		err := w.check(c, p, spec)
		if p.ended() {
			return
		}
		if err != nil {
			if counts.bad == 0 {
				w.event(v1.EventTypeWarning, "Unhealthy", kind+" probe failed: "+err.Error())
			}
			// A pod that is just starting is asked again soon.
			if kind != "Liveness" && time.Since(c.startedAt.Time) < 10*time.Second {
				wait = min(period, 500*time.Millisecond)
			}
		}
		passed, failed := counts.add(err == nil)
		if w.apply(c, p, kind, spec, passed, failed) {
			return
		}
	}
}

func (w *worker) hasStarted(c *container) bool {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return c.started
}

// apply a threshold that was reached; true when the probe is done.
func (w *worker) apply(c *container, p *process, kind string, spec *v1.Probe, passed, failed bool) bool {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if c.proc != p || !(passed || failed) {
		return false
	}
	switch {
	case kind == "Readiness":
		if c.ready != passed {
			c.ready = passed
			w.wake()
		}
		return false
	case kind == "Startup" && passed:
		c.started, c.ready = true, c.spec.ReadinessProbe == nil
		w.wake()
		return true
	case failed && !w.terminating:
		grace := w.pod.Spec.TerminationGracePeriodSeconds
		if spec.TerminationGracePeriodSeconds != nil {
			grace = spec.TerminationGracePeriodSeconds
		}
		go w.event(v1.EventTypeNormal, "Killing", fmt.Sprintf("Container %s failed its %s probe, will be restarted", c.spec.Name, kind))
		deadline := time.Now().Add(time.Duration(number(grace, 30)) * time.Second)
		go w.stop(c, func() time.Duration { return time.Until(deadline) })
		return true
	}
	return false
}

// check runs a probe once.
func (w *worker) check(c *container, p *process, spec *v1.Probe) error {
	timeout := time.Duration(max(spec.TimeoutSeconds, 1)) * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	switch {
	case spec.Exec != nil:
		out, code, err := w.node.output(ctx, p, spec.Exec.Command)
		if err == nil && code != 0 {
			err = fmt.Errorf("exit code %d: %s", code, out)
		}
		return err
	case spec.HTTPGet != nil:
		request, err := w.request(ctx, c, spec.HTTPGet)
		if err != nil {
			return err
		}
		result, text, err := httpprobe.DoHTTPProbe(request, w.httpClient())
		return failure(result, text, err)
	case spec.TCPSocket != nil:
		port, err := portNumber(c.spec, spec.TCPSocket.Port)
		if err != nil {
			return err
		}
		conn, err := w.dialer().DialContext(ctx, "tcp", net.JoinHostPort(w.host(spec.TCPSocket.Host), strconv.Itoa(port)))
		if err != nil {
			return err
		}
		return conn.Close()
	case spec.GRPC != nil:
		service := ""
		if spec.GRPC.Service != nil {
			service = *spec.GRPC.Service
		}
		result, text, err := grpcprobe.New().Probe(w.host(""), service, int(spec.GRPC.Port), timeout)
		return failure(result, text, err)
	}
	return nil
}

func failure(result probe.Result, text string, err error) error {
	if err != nil {
		return err
	}
	if result != probe.Success && result != probe.Warning {
		return fmt.Errorf("%s", text)
	}
	return nil
}

// request builds the request of an HTTP probe or hook.
func (w *worker) request(ctx context.Context, c *container, get *v1.HTTPGetAction) (*http.Request, error) {
	port, err := portNumber(c.spec, get.Port)
	if err != nil {
		return nil, err
	}
	plain := *get
	plain.Port = intstr.FromInt32(int32(port))
	request, err := httpprobe.NewRequestForHTTPGetAction(&plain, c.spec, w.host(""), "probe")
	if err != nil {
		return nil, err
	}
	return request.WithContext(ctx), nil
}

// httpClient probes as the kubelet does: no verification, no redirects to
// other hosts, a new connection each time.
func (w *worker) httpClient() *http.Client {
	return &http.Client{
		CheckRedirect: httpprobe.RedirectChecker(false),
		Transport: &http.Transport{
			DialContext: w.dialer().DialContext, DisableKeepAlives: true, DisableCompression: true,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		},
	}
}

// dialer connects from the node. To pods of the mesh it does so from the
// address that their redirection exempts, as the rules of the CNI agent
// arrange on a real node.
func (w *worker) dialer() *net.Dialer {
	d := &net.Dialer{}
	if w.node.enrolled(w.uid) {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(fabric.ProbeSource), 0))
	}
	return d
}

func (w *worker) host(named string) string {
	if named != "" {
		return named
	}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.address
}

// portNumber resolves a named port of the container.
func portNumber(c *v1.Container, port intstr.IntOrString) (int, error) {
	if port.Type == intstr.Int {
		return port.IntValue(), nil
	}
	for _, p := range c.Ports {
		if p.Name == port.StrVal {
			return int(p.ContainerPort), nil
		}
	}
	if number, err := strconv.Atoi(port.StrVal); err == nil {
		return number, nil
	}
	return 0, fmt.Errorf("container %s has no port named %q", c.Name, port.StrVal)
}
