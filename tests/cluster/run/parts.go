package run

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// issuer signs tokens of service accounts and is the only audience for which the
// API server itself takes them.
const issuer = "https://kubernetes.default.svc.cluster.local"

// auditPolicy has every request logged, once it is answered.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
`

// partSpec is how a part is started.
type partSpec struct {
	// name is the part's own; program is what runs it, if that is called otherwise.
	name, program string
	args          []string
	// gentle parts are asked to end and given time for it; the others keep
	// nothing that outlives the cluster.
	gentle bool
}

// layout is where a cluster keeps its files.
type layout struct {
	dir string
}

func (l layout) path(parts ...string) string {
	return filepath.Join(append([]string{l.dir}, parts...)...)
}
func (l layout) pki(file string) string        { return l.path("pki", file) }
func (l layout) kubeconfig(name string) string { return l.pki(name + ".kubeconfig") }
func (l layout) log(part string) string        { return l.path("logs", part+".log") }
func (l layout) pid(part string) string        { return l.path("pids", part) }

// assetsVariable names a directory of programs of Kubernetes, as envtest has it.
const assetsVariable = "KUBEBUILDER_ASSETS"

// assetsRequired is what the directory must hold. Such a directory has a kubectl as
// well, which no part of a cluster is, and nothing else.
var assetsRequired = []string{"etcd", "kube-apiserver"}

// programs are what parts of Kubernetes run: for each part that is not here, this
// very binary.
type programs map[string]string

// findPrograms looks into the directory that assetsVariable names, if it is set.
// Parts beyond those that it must hold come from there too when they are there, and
// so agree with its API server.
func findPrograms() (programs, error) {
	found := programs{}
	assets := os.Getenv(assetsVariable)
	if assets == "" {
		return found, nil
	}
	// Parts are started in a directory of their own.
	assets, err := filepath.Abs(assets)
	if err != nil {
		return nil, err
	}
	optional := []string{"kube-controller-manager", "kube-scheduler", "kube-proxy"}
	for _, part := range append(optional, assetsRequired...) {
		path := filepath.Join(assets, part)
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			return nil, fmt.Errorf("%s: %w", assetsVariable, err)
		case info.IsDir() || info.Mode()&0o111 == 0:
			return nil, fmt.Errorf("%s: %s is not a program", assetsVariable, path)
		default:
			found[part] = path
		}
	}
	for _, part := range assetsRequired {
		if found[part] == "" {
			return nil, fmt.Errorf("%s names %s, which has no %s: unset it to use what is built in",
				assetsVariable, assets, part)
		}
	}
	return found, nil
}

// command starts a part.
func (p programs) command(part string) []string {
	if path := p[part]; path != "" {
		return []string{path}
	}
	return []string{"/proc/self/exe", part}
}

func spec(part string, args ...string) partSpec {
	return partSpec{name: part, args: args}
}

// controlPlane is etcd, the API server and what needs no node, in order of start.
func controlPlane(p Plan, l layout) []partSpec {
	return []partSpec{etcd(l), apiServer(p, l), controllerManager(p, l), scheduler(l)}
}

func etcd(l layout) partSpec {
	const clients, peers = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
	return spec("etcd",
		"--data-dir="+l.path("etcd"),
		"--listen-client-urls="+clients, "--advertise-client-urls="+clients,
		"--listen-peer-urls="+peers, "--initial-advertise-peer-urls="+peers,
		"--initial-cluster=default="+peers,
		// What a power failure would lose is not worth a disk's time here; a killed
		// etcd loses nothing.
		"--unsafe-no-fsync",
		"--log-level=warn",
	)
}

func apiServer(p Plan, l layout) partSpec {
	return spec("kube-apiserver",
		"--etcd-servers=http://127.0.0.1:2379",
		"--bind-address=0.0.0.0", "--secure-port=6443", "--advertise-address="+p.FabricIP,
		"--tls-cert-file="+l.pki("apiserver.crt"), "--tls-private-key-file="+l.pki("apiserver.key"),
		"--client-ca-file="+l.pki("ca.crt"),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged",
		"--service-cluster-ip-range="+p.ServiceCIDR,
		"--service-account-issuer="+issuer,
		"--service-account-key-file="+l.pki("sa.pub"),
		"--service-account-signing-key-file="+l.pki("sa.key"),
		"--api-audiences="+issuer,
		"--kubelet-client-certificate="+l.pki("apiserver-kubelet-client.crt"),
		"--kubelet-client-key="+l.pki("apiserver-kubelet-client.key"),
		"--kubelet-certificate-authority="+l.pki("ca.crt"),
		"--kubelet-preferred-address-types=InternalIP",
		"--requestheader-client-ca-file="+l.pki("front-proxy-ca.crt"),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file="+l.pki("front-proxy-client.crt"),
		"--proxy-client-key-file="+l.pki("front-proxy-client.key"),
		"--audit-policy-file="+l.path("audit-policy.yaml"),
		"--audit-log-path="+l.path("audit.log"), "--audit-log-maxsize=4096",
		"--profiling=false",
	)
}

func controllerManager(p Plan, l layout) partSpec {
	kubeconfig := l.kubeconfig("kube-controller-manager")
	return spec("kube-controller-manager",
		"--kubeconfig="+kubeconfig,
		"--leader-elect=false",
		"--use-service-account-credentials",
		"--service-account-private-key-file="+l.pki("sa.key"),
		"--root-ca-file="+l.pki("ca.crt"),
		"--cluster-signing-cert-file="+l.pki("ca.crt"),
		"--cluster-signing-key-file="+l.pki("ca.key"),
		"--cluster-cidr="+p.PodCIDR,
		"--service-cluster-ip-range="+p.ServiceCIDR,
		"--allocate-node-cidrs=false",
		"--node-monitor-period=1s", "--node-monitor-grace-period=20s",
		// A test that makes thousands of objects should not wait for our own limits.
		"--kube-api-qps=500", "--kube-api-burst=1000",
		"--secure-port=0",
	)
}

func scheduler(l layout) partSpec {
	return spec("kube-scheduler",
		"--kubeconfig="+l.kubeconfig("kube-scheduler"),
		"--leader-elect=false",
		"--kube-api-qps=500", "--kube-api-burst=1000",
		"--secure-port=0",
	)
}

// kubeProxy serves all nodes at once, for they share the fabric.
func kubeProxy(p Plan, l layout) partSpec {
	return spec("kube-proxy",
		"--kubeconfig="+l.kubeconfig("kube-proxy"),
		"--proxy-mode=iptables",
		"--hostname-override="+p.Nodes[0].Name,
		"--bind-address="+p.FabricIP,
		"--cluster-cidr="+p.PodCIDR,
		"--conntrack-max-per-core=0",
		"--iptables-min-sync-period=100ms",
		"--iptables-localhost-nodeports=false",
		"--healthz-bind-address=127.0.0.1:10256",
		"--metrics-bind-address=127.0.0.1:10249",
	)
}

// nodeParts are the stand-ins for nodes.
func nodeParts(p Plan, l layout, o options) []partSpec {
	var specs []partSpec
	for i, n := range p.Nodes {
		s := spec("node",
			"--name="+n.Name,
			"--kubeconfig="+l.kubeconfig("nodes"),
			"--fabric="+p.Fabric,
			"--address="+n.IP,
			"--pod-cidr="+n.PodCIDR,
			"--state-dir="+l.path("nodes", n.Name),
			// A zone each: who prefers near endpoints can be told from who does not.
			fmt.Sprintf("--zone=zone-%d", i+1),
			"--load-balancer-cidr="+p.LBRange,
			"--tls-cert-file="+l.pki(n.Name+".crt"), "--tls-private-key-file="+l.pki(n.Name+".key"),
			"--client-ca-file="+l.pki("ca.crt"),
		)
		for _, image := range o.images {
			s.args = append(s.args, "--image="+image)
		}
		for _, path := range o.hostPaths {
			s.args = append(s.args, "--host-path="+path)
		}
		s.name, s.program, s.gentle = n.Name, s.name, true
		specs = append(specs, s)
	}
	return specs
}

// tail is the end of a part's log.
func (l layout) tail(part string, lines int) string {
	text, err := os.ReadFile(l.log(part))
	if err != nil {
		return fmt.Sprintf("(no log of %s: %v)", part, err)
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return strings.Join(all, "\n")
}
