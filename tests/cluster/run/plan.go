// Package run starts a whole cluster and watches over it.
//
// Everything of one cluster lives in one network namespace, the fabric, which a
// veth pair joins to the host. Clusters on one machine take different slots, and
// a slot decides every name and address.
package run

import (
	"fmt"
	"net"
)

// slotsCount bounds the clusters that one machine holds at once.
const slotsCount = 16

// nodesMax bounds the nodes of one cluster.
const nodesMax = 20

// Plan is every name and address of the cluster in one slot.
type Plan struct {
	Slot int `json:"slot"`
	// Fabric is the network namespace of the control plane and of the nodes.
	// Those of pods are named after it, with "-" and more behind.
	Fabric string `json:"fabric"`
	// HostLink is the host's end of the veth pair, FabricLink the other.
	HostLink   string `json:"hostLink"`
	FabricLink string `json:"fabricLink"`
	HostIP     string `json:"hostIP"`
	FabricIP   string `json:"fabricIP"`
	// PodCIDR is cut into one /24 per node.
	PodCIDR     string `json:"podCIDR"`
	ServiceCIDR string `json:"serviceCIDR"`
	// ServiceIP is the API server's address among services.
	ServiceIP string `json:"serviceIP"`
	// DNSIP is the address that pods ask for names.
	DNSIP string `json:"dnsIP"`
	// LBRange holds the addresses of LoadBalancer services.
	LBRange string     `json:"lbRange"`
	Nodes   []NodePlan `json:"nodes"`
}

// NodePlan is one node of a Plan.
type NodePlan struct {
	Name    string `json:"name"`
	IP      string `json:"ip"`
	PodCIDR string `json:"podCIDR"`
}

// plan is the only place where addresses are chosen.
func plan(slot, nodes int) Plan {
	pods, services := 80+slot, 100+slot
	p := Plan{
		Slot:        slot,
		Fabric:      fmt.Sprintf("amc%d", slot),
		HostLink:    fmt.Sprintf("amc%dh", slot),
		FabricLink:  "eth0",
		HostIP:      fmt.Sprintf("10.%d.255.1", pods),
		FabricIP:    fmt.Sprintf("10.%d.255.2", pods),
		PodCIDR:     fmt.Sprintf("10.%d.0.0/16", pods),
		ServiceCIDR: fmt.Sprintf("10.%d.0.0/16", services),
		ServiceIP:   fmt.Sprintf("10.%d.0.1", services),
		DNSIP:       fmt.Sprintf("10.%d.0.10", services),
		LBRange:     fmt.Sprintf("10.%d.254.0/24", pods),
	}
	for n := range nodes {
		p.Nodes = append(p.Nodes, NodePlan{
			Name:    fmt.Sprintf("node-%c", 'a'+n),
			IP:      fmt.Sprintf("10.%d.253.%d", pods, n+1),
			PodCIDR: fmt.Sprintf("10.%d.%d.0/24", pods, n+1),
		})
	}
	return p
}

// server is the API server as the host and everything in the fabric reach it.
func (p Plan) server() string {
	return "https://" + net.JoinHostPort(p.FabricIP, "6443")
}
