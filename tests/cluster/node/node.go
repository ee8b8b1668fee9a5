package node

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	authentication "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"ambientd/cluster/node/ambient"
	"ambientd/cluster/node/dns"
	"ambientd/cluster/node/fabric"
)

// Node is one node process.
type Node struct {
	config   *Config
	client   kubernetes.Interface
	recorder record.EventRecorder
	binary   string
	pool     *fabric.Pool
	agent    *ambient.Agent
	listers  listers

	mutex   sync.Mutex
	workers map[types.UID]*worker
	running sync.WaitGroup
}

// listers read the informers' stores.
type listers struct {
	configMaps corelisters.ConfigMapLister
	secrets    corelisters.SecretLister
	services   corelisters.ServiceLister
	namespaces corelisters.NamespaceLister
	nodes      corelisters.NodeLister
	slices     discoverylisters.EndpointSliceLister
}

// Main runs the subcommand `node` until SIGTERM and returns its exit code.
func Main(args []string) int {
	config, err := parseConfig(args)
	if err == nil {
		err = fabric.Enter(config.Fabric)
	}
	if err == nil {
		ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer cancel()
		err = run(ctx, config)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "node:", err)
		return 1
	}
	return 0
}

func run(ctx context.Context, config *Config) error {
	n, err := newNode(config)
	if err != nil {
		return err
	}
	n.forgetOldPods()
	if err := fabric.PrepareNode(config.Address); err != nil {
		return err
	}
	defer fabric.ForgetNode(config.Address)
	socket := filepath.Join(config.StateDir, "hostpath/var/run/ztunnel/ztunnel.sock")
	if n.agent, err = ambient.NewAgent(socket); err != nil {
		return err
	}
	pods, stop, err := n.startInformers(ctx)
	if err != nil {
		return err
	}
	defer stop()
	names := &dns.Server{Domain: config.ClusterDomain, Lookup: n.lookup}
	if err := names.Listen(config.Address.String() + ":53"); err != nil {
		return err
	}
	if err := n.serveKubelet(ctx); err != nil {
		return err
	}
	go n.keepRegistered(ctx)
	go n.giveLoadBalancers(ctx)
	n.followPods(ctx, pods)
	klog.Infof("node %s is running", config.Name)
	<-ctx.Done()
	n.running.Wait()
	return nil
}

func newNode(config *Config) (*Node, error) {
	rest, err := clientcmd.BuildConfigFromFlags("", config.Kubeconfig)
	if err != nil {
		return nil, err
	}
	rest.QPS, rest.Burst = 200, 400
	rest.UserAgent = "node/" + config.Name
	client, err := kubernetes.NewForConfig(rest)
	if err != nil {
		return nil, err
	}
	binary, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if config.StateDir, err = filepath.Abs(config.StateDir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(config.StateDir, 0o755); err != nil {
		return nil, err
	}
	events := record.NewBroadcaster()
	events.StartRecordingToSink(&typedcore.EventSinkImpl{Interface: client.CoreV1().Events("")})
	return &Node{
		config: config, client: client, binary: binary, pool: fabric.NewPool(config.PodCIDR),
		recorder: events.NewRecorder(scheme.Scheme, v1.EventSource{Component: "kubelet", Host: config.Name}),
		workers:  map[types.UID]*worker{},
	}, nil
}

// startInformers waits for complete stores. The pods are those of this node.
func (n *Node) startInformers(ctx context.Context) (cache.SharedIndexInformer, func(), error) {
	all := informers.NewSharedInformerFactory(n.client, 0)
	own := informers.NewSharedInformerFactoryWithOptions(n.client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", n.config.Name).String()
	}))
	core := all.Core().V1()
	n.listers = listers{
		configMaps: core.ConfigMaps().Lister(), secrets: core.Secrets().Lister(), services: core.Services().Lister(),
		namespaces: core.Namespaces().Lister(), nodes: core.Nodes().Lister(),
		slices: all.Discovery().V1().EndpointSlices().Lister(),
	}
	pods := own.Core().V1().Pods().Informer()
	stopped := make(chan struct{})
	all.Start(stopped)
	all.WaitForCacheSync(ctx.Done())
	if ctx.Err() != nil {
		close(stopped)
		return nil, nil, ctx.Err()
	}
	return pods, func() { close(stopped) }, nil
}

// followPods starts a worker for every pod of this node.
func (n *Node) followPods(ctx context.Context, pods cache.SharedIndexInformer) {
	_, err := pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { n.podChanged(ctx, object.(*v1.Pod)) },
		UpdateFunc: func(_, object any) { n.podChanged(ctx, object.(*v1.Pod)) },
		DeleteFunc: func(object any) {
			if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = unknown.Obj
			}
			if pod, ok := object.(*v1.Pod); ok {
				n.podGone(pod.UID)
			}
		},
	})
	if err != nil {
		klog.Fatalf("watch pods: %v", err)
	}
	go pods.Run(ctx.Done())
}

func (n *Node) podChanged(ctx context.Context, pod *v1.Pod) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	// A pod replaced by one of the same name while the watch was away.
	for uid, w := range n.workers {
		if uid != pod.UID && w.name() == pod.Namespace+"/"+pod.Name {
			w.update(nil)
		}
	}
	if w := n.workers[pod.UID]; w != nil {
		w.update(pod)
		return
	}
	w := newWorker(n, pod)
	n.workers[pod.UID] = w
	n.running.Add(1)
	go func() {
		defer n.running.Done()
		w.run(ctx)
		n.mutex.Lock()
		defer n.mutex.Unlock()
		// Kept until the object is gone: late news of it must not start it again.
		if w.over = true; w.isGone() {
			delete(n.workers, pod.UID)
		}
	}()
}

func (n *Node) podGone(uid types.UID) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	w := n.workers[uid]
	if w == nil {
		return
	}
	if w.over {
		delete(n.workers, uid)
	}
	w.update(nil)
}

// forgetOldPods removes what a process of this node that was killed has left:
// its containers died with it, network namespaces and files did not.
func (n *Node) forgetOldPods() {
	root := filepath.Join(n.config.StateDir, "pods")
	entries, _ := os.ReadDir(root)
	for _, entry := range entries {
		if name, err := os.ReadFile(filepath.Join(root, entry.Name(), "netns")); err == nil {
			link := n.link(types.UID(entry.Name()))
			link.Namespace = string(name)
			if err := link.Remove(); err != nil {
				klog.Warningf("left over: %v", err)
			}
		}
		_ = os.RemoveAll(filepath.Join(root, entry.Name()))
	}
}

func (n *Node) podDir(uid types.UID) string {
	return filepath.Join(n.config.StateDir, "pods", string(uid))
}

// link names the network of a pod after the pod's id.
func (n *Node) link(uid types.UID) fabric.Link {
	short := shortHash(string(uid))
	return fabric.Link{Namespace: n.config.Fabric + "-" + short, Interface: "v" + short, Node: n.config.Address}
}

func shortHash(text string) string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(text)))[:10]
}

// requestToken asks for a token that is bound to the pod.
func (n *Node) requestToken(ctx context.Context, pod *v1.Pod, p *v1.ServiceAccountTokenProjection) (*authentication.TokenRequestStatus, error) {
	request := &authentication.TokenRequest{Spec: authentication.TokenRequestSpec{
		ExpirationSeconds: p.ExpirationSeconds,
		BoundObjectRef:    &authentication.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	if p.Audience != "" {
		request.Spec.Audiences = []string{p.Audience}
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	answer, err := n.client.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, pod.Spec.ServiceAccountName, request, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	return &answer.Status, nil
}

// === impl sources ===

func (n *Node) configMap(namespace, name string) (*v1.ConfigMap, error) {
	return n.listers.configMaps.ConfigMaps(namespace).Get(name)
}

func (n *Node) secret(namespace, name string) (*v1.Secret, error) {
	return n.listers.secrets.Secrets(namespace).Get(name)
}

func (n *Node) services(namespace string) []*v1.Service {
	found, err := n.listers.services.Services(namespace).List(labels.Everything())
	if err != nil {
		return nil
	}
	return found
}
