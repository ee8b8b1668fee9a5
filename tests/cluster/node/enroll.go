package node

import (
	"context"
	"encoding/json"
	"slices"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"ambientd/cluster/node/ambient"
	"ambientd/cluster/node/fabric"
)

const (
	modeLabel          = "istio.io/dataplane-mode"
	redirectionNote    = "ambient.istio.io/redirection"
	redirectionEnabled = "enabled"
	sidecarStatusNote  = "sidecar.istio.io/status"
	ztunnelImage       = "ztunnel"
	modeAmbient        = "ambient"
	modeNone           = "none"
)

// wantsAmbient says whether a pod belongs in the mesh: its own label decides,
// else that of its namespace. Pods in the host's network, ztunnel itself and
// pods with a sidecar never do.
func wantsAmbient(pod *v1.Pod, namespaceLabels map[string]string) bool {
	if pod.Spec.HostNetwork || pod.Annotations[sidecarStatusNote] != "" {
		return false
	}
	if runsZtunnel(pod) {
		return false
	}
	switch pod.Labels[modeLabel] {
	case modeAmbient:
		return true
	case modeNone:
		return false
	}
	return namespaceLabels[modeLabel] == modeAmbient
}

func runsZtunnel(pod *v1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.Containers, func(c v1.Container) bool { return imageName(c.Image) == ztunnelImage })
}

// hasZtunnel says whether a ztunnel is or should be on this node: pods of the
// mesh wait for it. A cluster without any runs them outside the mesh.
func (n *Node) hasZtunnel() bool {
	if n.agent.Active() {
		return true
	}
	n.mutex.Lock()
	defer n.mutex.Unlock()
	for _, w := range n.workers {
		if pod, _ := w.current(); runsZtunnel(pod) {
			return true
		}
	}
	return false
}

// enroll brings the pod into the mesh or out of it, as labels say. An error
// means that a pod which is not running yet must wait.
func (n *Node) enroll(w *worker) error {
	pod, _ := w.current()
	if w.link == nil || !n.hasZtunnel() {
		return nil
	}
	namespace, err := n.listers.namespaces.Get(pod.Namespace)
	if err != nil {
		return err
	}
	uid := string(pod.UID)
	wanted, is := wantsAmbient(pod, namespace.Labels), n.agent.Enrolled(uid)
	switch {
	case wanted && !is:
		err = n.agent.Add(ambient.Pod{
			UID: uid, Namespace: pod.Namespace, Name: pod.Name, ServiceAccount: pod.Spec.ServiceAccountName,
			NetNS: fabric.Path(w.link.Namespace),
		})
	case !wanted && is:
		err = n.agent.Remove(uid, true)
	}
	if err != nil {
		return err
	}
	if (pod.Annotations[redirectionNote] == redirectionEnabled) != wanted {
		n.annotate(pod, wanted)
	}
	return nil
}

// annotate says on the pod whether its traffic is redirected.
func (n *Node) annotate(pod *v1.Pod, enrolled bool) {
	var value any
	if enrolled {
		value = redirectionEnabled
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": pod.UID, "annotations": map[string]any{redirectionNote: value}}})
	if err != nil {
		return
	}
	_, err = n.client.CoreV1().Pods(pod.Namespace).Patch(context.Background(), pod.Name, types.MergePatchType, body, metav1.PatchOptions{})
	if err != nil {
		klog.Infof("%s/%s: annotate: %v", pod.Namespace, pod.Name, err)
	}
}

// withdraw takes a pod that ends out of the mesh, before its network goes.
func (n *Node) withdraw(uid types.UID) {
	if err := n.agent.Remove(string(uid), false); err != nil {
		klog.Warningf("%s: %v", uid, err)
	}
}

func (n *Node) enrolled(uid types.UID) bool { return n.agent.Enrolled(string(uid)) }
