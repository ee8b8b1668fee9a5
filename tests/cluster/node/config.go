package node

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"strings"
)

// Config of one node process; every field is a flag.
type Config struct {
	// Name of the Node object.
	Name string
	// Kubeconfig of a client with the rights of a node and those of a CNI agent
	// (read pods, namespaces, Services; write pods and Nodes): an administrator's.
	Kubeconfig string
	// Fabric is the network namespace that all nodes and kube-proxy share. The
	// process enters it by itself.
	Fabric string
	// Address of the node in the fabric; set on its loopback interface.
	Address netip.Addr
	// PodCIDR is the range of the node's pods.
	PodCIDR netip.Prefix
	// StateDir holds everything the node writes.
	StateDir string
	// Region and Zone are the topology labels.
	Region, Zone string
	// ClusterDomain of DNS names.
	ClusterDomain string
	// LoadBalancers is the range for Services of type LoadBalancer; the zero
	// value gives none.
	LoadBalancers netip.Prefix
	// Images maps image names to programs.
	Images images
	// Env is set in every container, as NAME=VALUE; the container's own wins.
	Env list
	// DNS is the address that pods ask for names: the node's own when not set.
	DNS netip.Addr
	// HostPaths are paths of the machine that pods may mount as they are.
	HostPaths list
	// Port of the kubelet API.
	Port int
	// TLSCert, TLSKey: the serving certificate; self-signed when empty.
	TLSCert, TLSKey string
	// ClientCA: when set, the kubelet API demands a client certificate of it.
	ClientCA string
}

// parseConfig reads the flags of `node`.
func parseConfig(args []string) (*Config, error) {
	c := &Config{Images: images{}}
	flags := flag.NewFlagSet("node", flag.ContinueOnError)
	flags.StringVar(&c.Name, "name", "", "name of the node")
	flags.StringVar(&c.Kubeconfig, "kubeconfig", "", "administrator's kubeconfig")
	flags.StringVar(&c.Fabric, "fabric", "", "network namespace that the nodes share")
	flags.TextVar(&c.Address, "address", netip.Addr{}, "address of the node in the fabric")
	podCIDR := flags.String("pod-cidr", "", "address range of the node's pods")
	flags.StringVar(&c.StateDir, "state-dir", "", "directory for everything the node writes")
	flags.StringVar(&c.Region, "region", "region-1", "label topology.kubernetes.io/region")
	flags.StringVar(&c.Zone, "zone", "zone-1", "label topology.kubernetes.io/zone")
	flags.StringVar(&c.ClusterDomain, "cluster-domain", "cluster.local", "domain of cluster names")
	balancers := flags.String("load-balancer-cidr", "", "address range for Services of type LoadBalancer")
	flags.Var(c.Images, "image", "NAME=PROGRAM[,PROGRAM...] [ARGS...]: the program that an image name stands for; repeated")
	flags.Var(&c.Env, "env", "NAME=VALUE for all containers; repeated")
	flags.TextVar(&c.DNS, "dns", netip.Addr{}, "address that pods ask for names (default: the node's, where the node answers)")
	flags.Var(&c.HostPaths, "host-path", "path of the machine that hostPath volumes see as it is; repeated")
	flags.IntVar(&c.Port, "port", 10250, "port of the kubelet API")
	flags.StringVar(&c.TLSCert, "tls-cert-file", "", "serving certificate of the kubelet API (default: self-signed)")
	flags.StringVar(&c.TLSKey, "tls-private-key-file", "", "key of the serving certificate")
	flags.StringVar(&c.ClientCA, "client-ca-file", "", "accept only clients with a certificate of this CA")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	return c, c.complete(*podCIDR, *balancers)
}

func (c *Config) complete(podCIDR, balancers string) (err error) {
	if c.Name == "" || c.Kubeconfig == "" || c.Fabric == "" || c.StateDir == "" || !c.Address.IsValid() {
		return errors.New("--name, --kubeconfig, --fabric, --address, --pod-cidr and --state-dir are required")
	}
	if !c.DNS.IsValid() {
		c.DNS = c.Address
	}
	if c.PodCIDR, err = netip.ParsePrefix(podCIDR); err != nil {
		return fmt.Errorf("--pod-cidr: %w", err)
	}
	if balancers != "" {
		if c.LoadBalancers, err = netip.ParsePrefix(balancers); err != nil {
			return fmt.Errorf("--load-balancer-cidr: %w", err)
		}
	}
	return nil
}

// list is a flag that may be repeated.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

// Set implements flag.Value.
func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}
