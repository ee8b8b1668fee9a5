// One binary that is a Kubernetes cluster without containers: the real etcd, API
// server, controllers, scheduler, proxy and kubectl, a stand-in for nodes, and
// `run`, which starts one of each in a network namespace and watches over them.
package main

import (
	"fmt"
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"

	"ambientd/cluster/node"
	"ambientd/cluster/run"
)

const usage = `usage: cluster PART [FLAG]...

Each part takes its own flags; ask it with --help.

A whole cluster:
  run                       start all parts in a network namespace; stop them on SIGTERM
  clean                     remove what a killed run left behind
  pki                       make the keys and certificates of a cluster
  node                      one node: runs pods as processes

Kubernetes itself:
  etcd
  kube-apiserver
  kube-controller-manager
  kube-scheduler
  kube-proxy
  kubectl
`

func main() {
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	part, args := os.Args[1], os.Args[2:]
	switch part {
	case "run":
		os.Exit(run.Main(args))
	case "clean":
		os.Exit(run.CleanMain(args))
	case "pki":
		os.Exit(run.PKIMain(args))
	case "node":
		os.Exit(node.Main(args))
	case "help", "-h", "--help":
		fmt.Print(usage)
	default:
		kubernetes(part)
	}
}

// kubernetes runs a part of Kubernetes, which reads its own name and flags from
// the command line.
func kubernetes(part string) {
	os.Args = os.Args[1:]
	switch part {
	case "etcd":
		etcdmain.Main(os.Args)
	case "kube-apiserver":
		os.Exit(cli.Run(apiserver.NewAPIServerCommand()))
	case "kube-controller-manager":
		os.Exit(cli.Run(controllers.NewControllerManagerCommand()))
	case "kube-scheduler":
		os.Exit(cli.Run(scheduler.NewSchedulerCommand()))
	case "kube-proxy":
		os.Exit(cli.Run(proxy.NewProxyCommand()))
	case "kubectl":
		if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	default:
		fmt.Fprintf(os.Stderr, "cluster: no part %q\n\n%s", part, usage)
		os.Exit(2)
	}
}
