// Package node is a stand-in for a Kubernetes node: a kubelet whose containers
// are processes of this machine, the CNI agent of an ambient mesh and cluster
// DNS, in one process per node. kube-proxy runs beside it.
//
// # Where to look
//
//	config.go        the flags
//	node.go          wiring: informers, one worker per pod
//	register.go      Node object and lease
//	worker.go        the life of one pod: what starts when, and how it ends
//	prepare.go       network, volumes and files of a pod
//	container.go     one run of a container; stop.go ends it
//	probes.go        startup, readiness and liveness
//	status.go        the status that the API server gets
//	env.go, volumes.go, images.go   what a container sees
//	server.go, logs.go, execute.go  kubectl logs, exec and port-forward
//	enroll.go, ambient/             the agent that hands pods to ztunnel
//	names.go, dns/                  cluster DNS
//	loadbalancer.go                 addresses for Services
//	fabric/          network namespaces, links and addresses
//	sandbox/         the inside of a container: root file system, init, exec
//	programs/        built-in images: echo, client
//
// # What is real and what is not
//
// Every pod has a network namespace, its own address and the routes of a
// point-to-point link, every container its own mount, PID, UTS and IPC
// namespaces and a writable copy of the machine's root file system in memory.
// There are no images, cgroups, capabilities or seccomp profiles: an image name
// stands for a program of the machine (flag --image), resources are not
// limited, readOnlyRootFilesystem is not enforced.
//
// When the node process dies, so do all its containers; the next one starts
// the pods anew. Everything it writes is below its state directory, in memory
// file systems that end with the containers, and in the network namespaces
// named after the fabric.
package node
