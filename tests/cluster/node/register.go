package node

import (
	"context"
	"encoding/json"
	"runtime"
	"time"

	coordination "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

const (
	// leasePeriod is how often the node says that it lives.
	leasePeriod = 5 * time.Second
	// statusPeriod is how often it writes its conditions even without a change.
	statusPeriod = 5 * time.Minute
)

// keepRegistered creates the Node and keeps its lease and conditions.
func (n *Node) keepRegistered(ctx context.Context) {
	var written time.Time
	for {
		wait := leasePeriod
		err := n.renewLease(ctx)
		if err == nil && time.Since(written) > statusPeriod || n.lost() {
			if err = n.register(ctx); err == nil {
				written = time.Now()
			}
		}
		if err != nil && ctx.Err() == nil {
			klog.Warningf("register: %v", err)
			wait = time.Second
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// lost says whether the Node object is gone or shown as not ready, as happens
// after an outage.
func (n *Node) lost() bool {
	node, err := n.listers.nodes.Get(n.config.Name)
	return err != nil || !isReady(node)
}

func isReady(node *v1.Node) bool {
	for _, c := range node.Status.Conditions {
		if c.Type == v1.NodeReady {
			return c.Status == v1.ConditionTrue
		}
	}
	return false
}

func (n *Node) register(ctx context.Context) error {
	node := n.object()
	_, err := n.client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	if err != nil {
		body, _ := json.Marshal(map[string]any{"metadata": map[string]any{"labels": node.Labels}})
		if _, err := n.client.CoreV1().Nodes().Patch(ctx, node.Name, types.StrategicMergePatchType, body, metav1.PatchOptions{}); err != nil {
			return err
		}
	}
	body, err := json.Marshal(map[string]any{"status": node.Status})
	if err != nil {
		return err
	}
	_, err = n.client.CoreV1().Nodes().Patch(ctx, node.Name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status")
	return err
}

// object is the Node as this process describes it.
func (n *Node) object() *v1.Node {
	now := metav1.Now()
	condition := func(kind v1.NodeConditionType, status v1.ConditionStatus, reason string) v1.NodeCondition {
		return v1.NodeCondition{Type: kind, Status: status, Reason: reason, LastHeartbeatTime: now, LastTransitionTime: now}
	}
	return &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.config.Name, Labels: map[string]string{
			v1.LabelHostname: n.config.Name, v1.LabelOSStable: "linux", v1.LabelArchStable: runtime.GOARCH,
			v1.LabelTopologyRegion: n.config.Region, v1.LabelTopologyZone: n.config.Zone,
		}},
		Spec: v1.NodeSpec{PodCIDR: n.config.PodCIDR.String(), PodCIDRs: []string{n.config.PodCIDR.String()}},
		Status: v1.NodeStatus{
			Capacity: capacity, Allocatable: capacity,
			Addresses: []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: n.config.Address.String()}},
			Conditions: []v1.NodeCondition{
				condition(v1.NodeReady, v1.ConditionTrue, "KubeletReady"),
				condition(v1.NodeMemoryPressure, v1.ConditionFalse, "KubeletHasSufficientMemory"),
				condition(v1.NodeDiskPressure, v1.ConditionFalse, "KubeletHasNoDiskPressure"),
				condition(v1.NodePIDPressure, v1.ConditionFalse, "KubeletHasSufficientPID"),
				condition(v1.NodeNetworkUnavailable, v1.ConditionFalse, "RouteCreated"),
			},
			DaemonEndpoints: v1.NodeDaemonEndpoints{KubeletEndpoint: v1.DaemonEndpoint{Port: int32(n.config.Port)}},
			NodeInfo: v1.NodeSystemInfo{
				OperatingSystem: "linux", Architecture: runtime.GOARCH, KubeletVersion: "v1.35.4",
				ContainerRuntimeVersion: "node://1", OSImage: "processes, not containers",
			},
		},
	}
}

func (n *Node) renewLease(ctx context.Context) error {
	leases := n.client.CoordinationV1().Leases(v1.NamespaceNodeLease)
	now, seconds := metav1.NewMicroTime(time.Now()), int32(40)
	lease, err := leases.Get(ctx, n.config.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		lease = &coordination.Lease{ObjectMeta: metav1.ObjectMeta{Name: n.config.Name}}
		lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds, lease.Spec.RenewTime = &n.config.Name, &seconds, &now
		_, err = leases.Create(ctx, lease, metav1.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds, lease.Spec.RenewTime = &n.config.Name, &seconds, &now
	_, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
	return err
}
