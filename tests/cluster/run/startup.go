package run

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// startup brings the parts up in order.
type startup struct {
	options    options
	plan       Plan
	layout     layout
	supervisor *supervisor
	began      time.Time
	api        *http.Client
	steps      []steps
}

func (u *startup) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	if err := makePKI(u.layout.path("pki"), u.plan); err != nil {
		return err
	}
	u.step("pki")
	if err := os.WriteFile(u.layout.path("audit-policy.yaml"), []byte(auditPolicy), 0o600); err != nil {
		return err
	}
	if err := u.connect(); err != nil {
		return err
	}
	// The others try again and again until the API server answers.
	for _, spec := range controlPlane(u.plan, u.layout)[:2] {
		if err := u.supervisor.add(spec); err != nil {
			return err
		}
	}
	if err := u.await(ctx, "the API server", u.answers("/readyz")); err != nil {
		return err
	}
	for _, spec := range u.rest() {
		if err := u.supervisor.add(spec); err != nil {
			return err
		}
	}
	account := u.answers("/api/v1/namespaces/default/serviceaccounts/default")
	if err := u.await(ctx, "the default service account", account); err != nil {
		return err
	}
	if err := u.awaitNodes(ctx); err != nil {
		return err
	}
	if len(u.plan.Nodes) > 0 {
		if err := u.await(ctx, "the rules of services", u.proxied); err != nil {
			return err
		}
	}
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	return writeJSON(u.layout.path("ready"), Ready{
		Plan:       u.plan,
		Kubeconfig: u.layout.kubeconfig("admin"),
		Binary:     binary,
		Programs:   u.supervisor.programs,
		ElapsedMS:  time.Since(u.began).Milliseconds(),
		Steps:      u.steps,
	})
}

// rest is everything that needs the API server first.
func (u *startup) rest() []partSpec {
	rest := controlPlane(u.plan, u.layout)[2:]
	if len(u.plan.Nodes) > 0 {
		rest = append(rest, kubeProxy(u.plan, u.layout))
		rest = append(rest, nodeParts(u.plan, u.layout, u.options)...)
	}
	return rest
}

// awaitNodes waits until every node is ready.
func (u *startup) awaitNodes(ctx context.Context) error {
	return u.await(ctx, "the nodes", func() error {
		body, err := u.get("/api/v1/nodes")
		if err != nil {
			return err
		}
		var nodes corev1.NodeList
		if err := json.Unmarshal(body, &nodes); err != nil {
			return err
		}
		ready := 0
		for _, node := range nodes.Items {
			for _, condition := range node.Status.Conditions {
				if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
					ready++
				}
			}
		}
		if ready != len(u.plan.Nodes) {
			return fmt.Errorf("%d of %d nodes are ready", ready, len(u.plan.Nodes))
		}
		return nil
	})
}

// proxied asks the API server by its service, through the rules of kube-proxy.
func (u *startup) proxied() error {
	_, err := u.getFrom("https://"+u.plan.ServiceIP, "/readyz")
	return err
}

func (u *startup) step(name string) {
	u.steps = append(u.steps, steps{Name: name, AtMS: time.Since(u.began).Milliseconds()})
}

// connect prepares to ask the API server as an administrator.
func (u *startup) connect() error {
	pair, err := tls.LoadX509KeyPair(u.layout.pki("supervisor.crt"), u.layout.pki("supervisor.key"))
	if err != nil {
		return err
	}
	root, err := os.ReadFile(u.layout.pki("ca.crt"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	u.api = &http.Client{
		Timeout: 5 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots},
		},
	}
	return nil
}

// get asks the API server.
func (u *startup) get(path string) ([]byte, error) {
	return u.getFrom(u.plan.server(), path)
}

func (u *startup) getFrom(server, path string) ([]byte, error) {
	response, err := u.api.Get(server + path)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s is answered by %s: %.300s", path, response.Status, body)
	}
	return body, err
}

func (u *startup) answers(path string) func() error {
	return func() error {
		_, err := u.get(path)
		return err
	}
}

// await looks until there is no error, a part has ended or time is up.
func (u *startup) await(ctx context.Context, what string, look func() error) error {
	for {
		err := look()
		if err == nil {
			u.step(what)
			return nil
		}
		if dead := u.supervisor.dead(); dead != nil {
			return fmt.Errorf("waiting for %s: %w", what, dead)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited in vain for %s: %w", what, err)
		case <-time.After(pollEvery):
		}
	}
}

// logs is the end of each part's log, as an error to add to another.
func (u *startup) logs() error {
	var text strings.Builder
	for _, name := range u.supervisor.order {
		fmt.Fprintf(&text, "--- %s ends with:\n%s\n", name, u.layout.tail(name, tailLines))
	}
	return errors.New(text.String())
}
