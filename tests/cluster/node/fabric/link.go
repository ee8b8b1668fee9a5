package fabric

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
)

const (
	// gateway is the next hop of every pod; it exists on no interface, a static
	// neighbour entry stands for it.
	gateway = "169.254.1.1"
	// gatewayMAC is the address of the fabric's end of every veth pair.
	gatewayMAC = "ee:ee:ee:ee:ee:ee"
	// ProbeSource is the address from which a node probes pods of the mesh. The
	// redirection exempts it.
	ProbeSource = "169.254.7.127"
)

// Link is the connection of one pod to the fabric.
type Link struct {
	// Namespace is the pod's network namespace.
	Namespace string
	// Interface is the fabric's end of the veth pair.
	Interface string
	// Address of the pod.
	Address netip.Addr
	// Node is the source address of the node's own connections to the pod.
	Node netip.Addr
}

// commands that join the pod, for `ip -batch`.
func (l Link) commands() string {
	return strings.Join([]string{
		fmt.Sprintf("link add %s type veth peer name eth0 netns %s", l.Interface, l.Namespace),
		fmt.Sprintf("link set %s address %s up", l.Interface, gatewayMAC),
		fmt.Sprintf("route replace %s/32 dev %s src %s", l.Address, l.Interface, l.Node),
	}, "\n") + "\n"
}

// insideCommands set up the pod's end, for `ip -n NAMESPACE -batch`.
func (l Link) insideCommands() string {
	return strings.Join([]string{
		"link set lo up",
		fmt.Sprintf("addr add %s/32 dev eth0", l.Address),
		"link set eth0 up",
		"route add " + gateway + " dev eth0 scope link",
		"route add default via " + gateway,
		"neigh add " + gateway + " lladdr " + gatewayMAC + " dev eth0 nud permanent",
	}, "\n") + "\n"
}

// Join creates the pod's network namespace and its link to the fabric.
func (l Link) Join() error {
	if err := Run("", "ip", "netns", "add", l.Namespace); err != nil {
		return err
	}
	if err := Run(l.commands(), "ip", "-batch", "-"); err != nil {
		return err
	}
	if err := Run(l.insideCommands(), "ip", "-n", l.Namespace, "-batch", "-"); err != nil {
		return err
	}
	// As container runtimes do: ports below 1024 need no privilege in a pod.
	return Do(l.Namespace, func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0)
	})
}

// Remove deletes the link and the namespace; what is already gone is no error.
func (l Link) Remove() error {
	if l.Interface != "" {
		_ = Run("", "ip", "link", "del", l.Interface)
	}
	if _, err := os.Stat(Path(l.Namespace)); err != nil {
		return nil
	}
	return Run("", "ip", "netns", "del", l.Namespace)
}

// PrepareNode gives the node its address in the fabric, on the loopback
// interface (every machine has that), and lets the fabric forward.
func PrepareNode(address netip.Addr) error {
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return err
	}
	if err := Run("", "ip", "link", "set", "lo", "up"); err != nil {
		return err
	}
	// With the scope of a link it is never chosen as source by itself, above all
	// not for masquerading: it passes the redirection.
	if err := Run("", "ip", "addr", "replace", ProbeSource+"/32", "dev", "lo", "scope", "link"); err != nil {
		return err
	}
	return Run("", "ip", "addr", "replace", address.String()+"/32", "dev", "lo")
}

// ForgetNode removes the node's address.
func ForgetNode(address netip.Addr) {
	_ = Run("", "ip", "addr", "del", address.String()+"/32", "dev", "lo")
}
