package node

import (
	"net/netip"
	"sort"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"

	"ambientd/cluster/node/dns"
)

// lookup answers names of Services from the informers' stores.
func (n *Node) lookup(host, service, namespace string) dns.Answer {
	found, err := n.listers.services.Services(namespace).Get(service)
	if err != nil {
		return dns.Answer{}
	}
	selector := labels.SelectorFromSet(labels.Set{discovery.LabelServiceName: service})
	slices, err := n.listers.slices.EndpointSlices(namespace).List(selector)
	if err != nil {
		return dns.Answer{}
	}
	return answer(found, slices, host)
}

// answer is what the names of one Service stand for.
func answer(s *v1.Service, slices []*discovery.EndpointSlice, host string) dns.Answer {
	switch {
	case s.Spec.Type == v1.ServiceTypeExternalName && host == "":
		return dns.Answer{Exists: true, Alias: s.Spec.ExternalName}
	case s.Spec.ClusterIP != v1.ClusterIPNone && host == "":
		return dns.Answer{Exists: true, Addresses: parseAll(s.Spec.ClusterIPs)}
	}
	seen := map[netip.Addr]bool{}
	for _, slice := range slices {
		for _, e := range slice.Endpoints {
			named := host == "" || e.Hostname != nil && *e.Hostname == host
			ready := e.Conditions.Ready == nil || *e.Conditions.Ready || s.Spec.PublishNotReadyAddresses
			if !named || !ready {
				continue
			}
			for _, address := range parseAll(e.Addresses) {
				seen[address] = true
			}
		}
	}
	out := dns.Answer{Exists: host == "" || len(seen) > 0}
	for address := range seen {
		out.Addresses = append(out.Addresses, address)
	}
	sort.Slice(out.Addresses, func(i, j int) bool { return out.Addresses[i].Less(out.Addresses[j]) })
	return out
}

func parseAll(texts []string) []netip.Addr {
	var out []netip.Addr
	for _, text := range texts {
		if address, err := netip.ParseAddr(text); err == nil {
			out = append(out, address)
		}
	}
	return out
}
