package node

import (
	"context"
	"encoding/json"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

// report sends the pod's status when it differs from what was sent last.
func (w *worker) report(ctx context.Context) {
	w.mutex.Lock()
	status := w.status()
	pod, same := w.pod, w.sent != nil && equality.Semantic.DeepEqual(*w.sent, status)
	w.mutex.Unlock()
	if same {
		return
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": status})
	if err != nil {
		klog.Errorf("%s: %v", w.name(), err)
		return
	}
	_, err = w.node.client.CoreV1().Pods(pod.Namespace).Patch(context.WithoutCancel(ctx), pod.Name,
		types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status")
	switch {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		// The object is gone or another one: the informer says so soon.
	case err != nil:
		klog.Warningf("%s: status: %v", w.name(), err)
		return
	}
	w.mutex.Lock()
	w.sent = &status
	w.mutex.Unlock()
}

// status of the pod now. Called with the mutex held. Conditions of others are
// left alone: the patch merges conditions by type.
func (w *worker) status() v1.PodStatus {
	s := v1.PodStatus{Phase: w.phase(), HostIP: w.node.config.Address.String(), PodIP: w.address, QOSClass: w.pod.Status.QOSClass}
	s.HostIPs = []v1.HostIP{{IP: s.HostIP}}
	if w.address != "" {
		s.PodIPs = []v1.PodIP{{IP: w.address}}
	}
	if s.StartTime = w.pod.Status.StartTime; s.StartTime == nil {
		now := metav1.Now()
		if w.sent != nil && w.sent.StartTime != nil {
			now = *w.sent.StartTime
		}
		s.StartTime = &now
	}
	ready := true
	for _, c := range w.containers {
		state := w.containerStatus(c)
		if c.role == roleMain {
			s.ContainerStatuses = append(s.ContainerStatuses, state)
		} else {
			s.InitContainerStatuses = append(s.InitContainerStatuses, state)
		}
		if c.role != roleSetup && !state.Ready {
			ready = false
		}
	}
	w.addConditions(&s, ready)
	return s
}

func (w *worker) phase() v1.PodPhase {
	switch {
	case w.finished != "":
		return w.finished
	case !w.initialized:
		return v1.PodPending
	case w.terminating:
		return terminatedPhase(w.containers)
	}
	for _, c := range w.containers {
		if c.role == roleMain && c.runs > 0 {
			return v1.PodRunning
		}
	}
	return v1.PodPending
}

// terminatedPhase of a pod that is being deleted: Running until all have ended.
func terminatedPhase(containers []*container) v1.PodPhase {
	phase := v1.PodSucceeded
	for _, c := range containers {
		switch {
		case c.role != roleMain:
		case c.proc != nil:
			return v1.PodRunning
		case c.exit == nil || c.exit.ExitCode != 0:
			phase = v1.PodFailed
		}
	}
	return phase
}

// addConditions sets the conditions that the node owns.
func (w *worker) addConditions(s *v1.PodStatus, containersReady bool) {
	reason := ""
	if w.finished != "" {
		containersReady, reason = false, "PodCompleted"
	} else if !containersReady {
		reason = "ContainersNotReady"
	}
	ready, readyReason := containersReady, reason
	for _, gate := range w.pod.Spec.ReadinessGates {
		if ready && !conditionTrue(w.pod.Status.Conditions, gate.ConditionType) {
			ready, readyReason = false, "ReadinessGatesNotReady"
		}
	}
	set := func(kind v1.PodConditionType, value bool, reason string) {
		condition := v1.PodCondition{Type: kind, Status: v1.ConditionFalse, Reason: reason, LastTransitionTime: metav1.Now()}
		if value {
			condition.Status, condition.Reason = v1.ConditionTrue, ""
		}
		if w.sent != nil {
			for _, old := range w.sent.Conditions {
				if old.Type == kind && old.Status == condition.Status {
					condition.LastTransitionTime = old.LastTransitionTime
				}
			}
		}
		s.Conditions = append(s.Conditions, condition)
	}
	set(v1.PodReadyToStartContainers, w.prepared && w.finished == "", "")
	set(v1.PodInitialized, w.initialized, "ContainersNotInitialized")
	set(v1.ContainersReady, containersReady, reason)
	set(v1.PodReady, ready, readyReason)
}

func conditionTrue(all []v1.PodCondition, kind v1.PodConditionType) bool {
	for _, c := range all {
		if c.Type == kind {
			return c.Status == v1.ConditionTrue
		}
	}
	return false
}

// containerStatus of one container. Called with the mutex held.
func (w *worker) containerStatus(c *container) v1.ContainerStatus {
	started := c.started && c.proc != nil
	s := v1.ContainerStatus{
		Name: c.spec.Name, Image: c.spec.Image, ImageID: c.spec.Image, RestartCount: c.restarts,
		Started: &started, Ready: c.ready && c.proc != nil,
	}
	if c.runs > 0 {
		s.ContainerID = w.containerID(c)
	}
	over := w.terminating || w.finished != "" || !c.restartable(w.pod.Spec.RestartPolicy)
	switch {
	case c.proc != nil:
		s.State.Running = &v1.ContainerStateRunning{StartedAt: c.startedAt}
		s.LastTerminationState.Terminated = c.exit
	case c.exit != nil && over:
		s.State.Terminated = c.exit
		s.LastTerminationState.Terminated = c.prior
		s.Ready = c.role == roleSetup && c.exit.ExitCode == 0
	default:
		s.State.Waiting = &v1.ContainerStateWaiting{Reason: c.reason, Message: c.message}
		if c.reason == "" {
			s.State.Waiting.Reason, s.State.Waiting.Message = w.waitReason(c)
		}
		s.LastTerminationState.Terminated = c.exit
	}
	return s
}

// waitReason says why a container was not tried yet.
func (w *worker) waitReason(c *container) (reason, message string) {
	switch {
	case w.reason != "":
		return w.reason, w.message
	case c.role != roleSetup && !w.initialized:
		return "PodInitializing", ""
	}
	return "ContainerCreating", ""
}
