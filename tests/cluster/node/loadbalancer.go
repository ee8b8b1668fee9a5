package node

import (
	"context"
	"encoding/json"
	"net/netip"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"ambientd/cluster/node/fabric"
)

// giveLoadBalancers gives Services of type LoadBalancer an address, on the node
// whose name is the first of those that are ready; kube-proxy routes it.
func (n *Node) giveLoadBalancers(ctx context.Context) {
	if !n.config.LoadBalancers.IsValid() {
		return
	}
	ticker := time.NewTicker(500 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		nodes, err := n.listers.nodes.List(labels.Everything())
		if err != nil || firstReady(nodes) != n.config.Name {
			continue
		}
		services, err := n.listers.services.List(labels.Everything())
		if err != nil {
			continue
		}
		for _, change := range balance(services, n.config.LoadBalancers) {
			n.setAddress(ctx, change)
		}
	}
}

func firstReady(nodes []*v1.Node) string {
	first := ""
	for _, node := range nodes {
		if isReady(node) && (first == "" || node.Name < first) {
			first = node.Name
		}
	}
	return first
}

// balancerChange is an address to be written; the zero address removes it.
type balancerChange struct {
	service *v1.Service
	address netip.Addr
}

// balance finds the Services whose address is missing or no longer wanted.
// spec.loadBalancerIP is honoured when it is free and in the range, and a
// Service with a loadBalancerClass is another's.
func balance(services []*v1.Service, prefix netip.Prefix) []balancerChange {
	pool := fabric.NewPool(prefix)
	var wanting []*v1.Service
	var out []balancerChange
	for _, s := range services {
		wants := s.Spec.Type == v1.ServiceTypeLoadBalancer && s.Spec.LoadBalancerClass == nil && s.DeletionTimestamp == nil
		ours := false
		for _, ingress := range s.Status.LoadBalancer.Ingress {
			if address, err := netip.ParseAddr(ingress.IP); err == nil && prefix.Contains(address) {
				ours = pool.Claim(address)
			}
		}
		switch {
		case wants && !ours:
			wanting = append(wanting, s)
		case !wants && ours && s.Spec.Type != v1.ServiceTypeLoadBalancer:
			out = append(out, balancerChange{service: s})
		}
	}
	for _, s := range wanting {
		address, err := netip.ParseAddr(s.Spec.LoadBalancerIP)
		if err != nil || !pool.Claim(address) {
			if address, err = pool.Take(); err != nil {
				klog.Warningf("%s/%s: %v", s.Namespace, s.Name, err)
				continue
			}
		}
		out = append(out, balancerChange{service: s, address: address})
	}
	return out
}

func (n *Node) setAddress(ctx context.Context, c balancerChange) {
	ingress := []map[string]any{}
	if c.address.IsValid() {
		ingress = append(ingress, map[string]any{"ip": c.address.String(), "ipMode": "VIP"})
	}
	body, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": c.service.UID},
		"status":   map[string]any{"loadBalancer": map[string]any{"ingress": ingress}},
	})
	if err != nil {
		return
	}
	_, err = n.client.CoreV1().Services(c.service.Namespace).Patch(ctx, c.service.Name, types.MergePatchType, body, metav1.PatchOptions{}, "status")
	if err != nil && ctx.Err() == nil {
		klog.Infof("%s/%s: load balancer: %v", c.service.Namespace, c.service.Name, err)
	}
}
