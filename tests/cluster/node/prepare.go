package node

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"ambientd/cluster/node/fabric"
)

// refreshPeriod is how often the files of volumes are compared with their
// objects.
const refreshPeriod = 2 * time.Second

// prepare makes network, volumes and files of the pod; later calls keep volumes
// up to date.
func (w *worker) prepare(ctx context.Context) error {
	pod := w.describedLocked()
	if w.prepared {
		if time.Since(w.refreshed) > refreshPeriod {
			w.refreshed = time.Now()
			if err := w.volumes.write(ctx, pod); err != nil {
				klog.V(2).Infof("%s: %v", w.name(), err)
			}
		}
		return nil
	}
	for _, dir := range []string{"containers", "logs", "volumes"} {
		if err := os.MkdirAll(filepath.Join(w.dir, dir), 0o755); err != nil {
			return err
		}
	}
	if err := w.joinNetwork(pod); err != nil {
		return err
	}
	// The pod's address may be part of its volumes.
	pod = w.describedLocked()
	if err := w.volumes.write(ctx, pod); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(w.dir, "hosts"), []byte(hostsFile(pod, w.hostname(pod))), 0o644); err != nil {
		return err
	}
	resolver := resolverFile(pod, w.node.config.DNS.String(), w.node.config.ClusterDomain)
	if err := os.WriteFile(filepath.Join(w.dir, "resolv.conf"), []byte(resolver), 0o644); err != nil {
		return err
	}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.prepared, w.refreshed = true, time.Now()
	return nil
}

// joinNetwork gives the pod its address, once.
func (w *worker) joinNetwork(pod *v1.Pod) error {
	if w.address != "" {
		return nil
	}
	if pod.Spec.HostNetwork {
		w.setNetwork(nil, w.node.config.Address.String())
		return nil
	}
	address, err := netip.ParseAddr(pod.Status.PodIP)
	if err != nil || !w.node.pool.Claim(address) {
		if address, err = w.node.pool.Take(); err != nil {
			return err
		}
	}
	link := w.node.link(pod.UID)
	link.Address = address
	// Found again at the next start, even after a crash.
	if err := os.WriteFile(filepath.Join(w.dir, "netns"), []byte(link.Namespace), 0o644); err != nil {
		return err
	}
	if err := link.Join(); err != nil {
		_ = link.Remove()
		w.node.pool.Give(address)
		return err
	}
	w.setNetwork(&link, address.String())
	return nil
}

func (w *worker) setNetwork(link *fabric.Link, address string) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.link, w.address = link, address
}

// dropNetwork takes the pod out of the mesh, then removes its network.
func (w *worker) dropNetwork() {
	w.mutex.Lock()
	link := w.link
	w.link = nil
	w.mutex.Unlock()
	if link == nil {
		return
	}
	w.node.withdraw(w.uid)
	if err := link.Remove(); err != nil {
		klog.Warningf("%s: %v", w.name(), err)
	}
	w.node.pool.Give(link.Address)
}

// namespace is the pod's network namespace; "" for the fabric.
func (w *worker) namespace() string {
	if w.link == nil {
		return ""
	}
	return w.link.Namespace
}

// described is the pod with the addresses that its status will show. Called
// with the mutex held.
func (w *worker) described() *v1.Pod {
	pod := w.pod.DeepCopy()
	pod.Status.HostIP = w.node.config.Address.String()
	pod.Status.PodIP, pod.Status.PodIPs = w.address, nil
	if w.address != "" {
		pod.Status.PodIPs = []v1.PodIP{{IP: w.address}}
	}
	return pod
}

func (w *worker) describedLocked() *v1.Pod {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if w.address == "" {
		// Not yet given: keep what an earlier process of the node gave.
		return w.pod
	}
	return w.described()
}

func (w *worker) hostname(pod *v1.Pod) string {
	switch {
	case pod.Spec.HostNetwork:
		return w.node.config.Name
	case pod.Spec.Hostname != "":
		return pod.Spec.Hostname
	}
	return pod.Name
}

func hostsFile(pod *v1.Pod, hostname string) string {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost\n")
	fmt.Fprintf(&b, "%s\t%s\n", pod.Status.PodIP, hostname)
	for _, alias := range pod.Spec.HostAliases {
		fmt.Fprintf(&b, "%s\t%s\n", alias.IP, strings.Join(alias.Hostnames, "\t"))
	}
	return b.String()
}

// resolverFile is the pod's resolv.conf. All DNS policies but None mean cluster
// names: there is no other DNS here.
func resolverFile(pod *v1.Pod, server, domain string) string {
	var servers, searches, options []string
	if pod.Spec.DNSPolicy != v1.DNSNone {
		servers = []string{server}
		searches = []string{pod.Namespace + ".svc." + domain, "svc." + domain, domain}
		options = []string{"ndots:5"}
	}
	if c := pod.Spec.DNSConfig; c != nil {
		servers, searches = append(servers, c.Nameservers...), append(searches, c.Searches...)
		for _, o := range c.Options {
			text := o.Name
			if o.Value != nil {
				text += ":" + *o.Value
			}
			options = append(options, text)
		}
	}
	var b strings.Builder
	for _, s := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(searches) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(searches, " "))
	}
	if len(options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(options, " "))
	}
	return b.String()
}
