package node

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// fakeSources holds one ConfigMap "cm" and one Service.
type fakeSources struct{ data map[string]string }

func (f fakeSources) configMap(_, name string) (*v1.ConfigMap, error) {
	if name != "cm" {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, name)
	}
	return &v1.ConfigMap{Data: f.data}, nil
}

func (f fakeSources) secret(_, name string) (*v1.Secret, error) {
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
}

func (f fakeSources) services(namespace string) []*v1.Service {
	if namespace != "default" {
		return nil
	}
	return []*v1.Service{{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"},
		Spec: v1.ServiceSpec{ClusterIP: "10.0.0.1", Ports: []v1.ServicePort{{Port: 443}}}}}
}

func testPod() *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "app", Labels: map[string]string{"a/b": "c"}},
		Spec:       v1.PodSpec{NodeName: "n", ServiceAccountName: "sa"},
		Status:     v1.PodStatus{PodIP: "10.1.0.5", PodIPs: []v1.PodIP{{IP: "10.1.0.5"}}, HostIP: "10.2.0.1"},
	}
}

func field(path string) *v1.EnvVarSource {
	return &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: path}}
}

func TestEnvironment(t *testing.T) {
	yes := true
	c := &v1.Container{
		Resources: v1.ResourceRequirements{Limits: v1.ResourceList{"memory": resource.MustParse("512Mi")}},
		EnvFrom:   []v1.EnvFromSource{{Prefix: "P_", ConfigMapRef: &v1.ConfigMapEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: "cm"}}}},
		Env: []v1.EnvVar{
			{Name: "IP", ValueFrom: field("status.podIP")},
			{Name: "URL", Value: "http://$(IP):$(PORT)/$$(IP)"},
			{Name: "LABEL", ValueFrom: field("metadata.labels['a/b']")},
			{Name: "SA", ValueFrom: field("spec.serviceAccountName")},
			{Name: "MEM", ValueFrom: &v1.EnvVarSource{ResourceFieldRef: &v1.ResourceFieldSelector{Resource: "limits.memory", Divisor: resource.MustParse("1Mi")}}},
			{Name: "NONE", ValueFrom: &v1.EnvVarSource{SecretKeyRef: &v1.SecretKeySelector{Optional: &yes}}},
			{Name: "COMMON", Value: "own"},
		},
	}
	got, _, err := environment(testPod(), c, fakeSources{map[string]string{"k": "v"}}, []string{"COMMON=all", "MORE=x"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"IP=10.1.0.5", "URL=http://10.1.0.5:$(PORT)/$(IP)", "LABEL=c", "SA=sa", "MEM=512", "P_k=v",
		"COMMON=own", "MORE=x", "KUBERNETES_SERVICE_HOST=10.0.0.1", "KUBERNETES_SERVICE_PORT=443", "HOSTNAME=p"} {
		if !slices.Contains(got, want) {
			t.Errorf("no %s in %v", want, got)
		}
	}
	if strings.Contains(strings.Join(got, " "), "NONE=") {
		t.Error("an optional variable without a source was set")
	}
	c.Env = []v1.EnvVar{{Name: "X", ValueFrom: &v1.EnvVarSource{SecretKeyRef: &v1.SecretKeySelector{}}}}
	if _, _, err := environment(testPod(), c, fakeSources{}, nil); err == nil {
		t.Error("a missing Secret was accepted")
	}
}

func TestVolumesFollowTheirObjects(t *testing.T) {
	pod := testPod()
	reference := v1.LocalObjectReference{Name: "cm"}
	pod.Spec.Volumes = []v1.Volume{
		{Name: "c", VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: reference}}},
		{Name: "e", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}},
		{Name: "h", VolumeSource: v1.VolumeSource{HostPath: &v1.HostPathVolumeSource{Path: "/var/run/ztunnel"}}},
	}
	dir := t.TempDir()
	data := map[string]string{"k": "1"}
	v := &volumes{dir: dir + "/v", hostRoot: dir + "/host", hostPaths: []string{"/srv/real"}, src: fakeSources{data}, tokens: map[string]issued{}}
	for _, value := range []string{"1", "2"} {
		data["k"] = value
		if err := v.write(context.Background(), pod); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, "v/c/k")); err != nil || string(got) != value {
			t.Fatalf("%q %v", got, err)
		}
	}
	if _, err := os.Stat(dir + "/host/var/run/ztunnel"); err != nil {
		t.Error(err)
	}
	real := &v1.Volume{VolumeSource: v1.VolumeSource{HostPath: &v1.HostPathVolumeSource{Path: "/srv/real/x"}}}
	if got := v.path(real); got != "/srv/real/x" {
		t.Error(got)
	}
	pod.Spec.Volumes[0].ConfigMap.Name = "missing"
	if err := v.write(context.Background(), pod); err == nil || !strings.Contains(err.Error(), `volume "c": configmaps "missing" not found`) {
		t.Error(err)
	}
	yes := true
	pod.Spec.Volumes[0].ConfigMap.Optional = &yes
	if err := v.write(context.Background(), pod); err != nil {
		t.Error(err)
	}
}

func TestImages(t *testing.T) {
	for reference, want := range map[string]string{
		"docker.io/istio/proxyv2:1.30": "proxyv2", "echo": "echo", "localhost:5000/ztunnel": "ztunnel", "a/b@sha256:12": "b",
	} {
		if got := imageName(reference); got != want {
			t.Errorf("%s: %s", reference, got)
		}
	}
	known := images{"proxyv2": {"/bin/sh", "agent"}}
	p, err := known.lookup("x/proxyv2:1", "/self")
	if err != nil || p.mounts[0].Target != "/usr/local/bin/proxyv2" {
		t.Fatal(p, err)
	}
	several, err := images{"b": {"/x/agent,/y/proxy", "run"}}.lookup("b:1", "/self")
	if err != nil || len(several.mounts) != 2 || several.mounts[0].Target != "/usr/local/bin/b" ||
		several.mounts[1].Target != "/usr/local/bin/proxy" || strings.Join(several.argv, " ") != "/usr/local/bin/b run" {
		t.Fatal(several, err)
	}
	never, always := func(string) bool { return false }, func(string) bool { return true }
	for _, test := range []struct {
		command, args []string
		exists        func(string) bool
		want          string
	}{
		{nil, []string{"proxy"}, never, "/usr/local/bin/proxyv2 agent proxy"},
		{[]string{"/gone", "x"}, []string{"y"}, never, "/usr/local/bin/proxyv2 agent x y"},
		{[]string{"sh", "-c"}, []string{"y"}, always, "sh -c y"},
	} {
		if got := strings.Join(commandLine(test.command, test.args, p, test.exists), " "); got != test.want {
			t.Errorf("%v %v: %s", test.command, test.args, got)
		}
	}
	if _, err := known.lookup("nginx", ""); err == nil || !strings.Contains(err.Error(), "proxyv2") {
		t.Error(err)
	}
}

func TestWantsAmbient(t *testing.T) {
	in := map[string]string{modeLabel: modeAmbient}
	pod := func(change func(*v1.Pod)) *v1.Pod {
		p := testPod()
		p.Spec.Containers = []v1.Container{{Image: "echo"}}
		change(p)
		return p
	}
	for name, test := range map[string]struct {
		pod       *v1.Pod
		namespace map[string]string
		want      bool
	}{
		"by namespace":  {pod(func(*v1.Pod) {}), in, true},
		"not at all":    {pod(func(*v1.Pod) {}), nil, false},
		"by itself":     {pod(func(p *v1.Pod) { p.Labels = in }), nil, true},
		"opted out":     {pod(func(p *v1.Pod) { p.Labels = map[string]string{modeLabel: modeNone} }), in, false},
		"host network":  {pod(func(p *v1.Pod) { p.Spec.HostNetwork = true }), in, false},
		"ztunnel":       {pod(func(p *v1.Pod) { p.Spec.Containers[0].Image = "istio/ztunnel:1" }), in, false},
		"with sidecar":  {pod(func(p *v1.Pod) { p.Annotations = map[string]string{sidecarStatusNote: "{}"} }), in, false},
		"unknown value": {pod(func(p *v1.Pod) { p.Labels = map[string]string{modeLabel: "x"} }), in, true},
	} {
		if got := wantsAmbient(test.pod, test.namespace); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestBalance(t *testing.T) {
	service := func(name string, kind v1.ServiceType, has, asks string) *v1.Service {
		s := &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.ServiceSpec{Type: kind, LoadBalancerIP: asks}}
		if has != "" {
			s.Status.LoadBalancer.Ingress = []v1.LoadBalancerIngress{{IP: has}}
		}
		return s
	}
	got := balance([]*v1.Service{
		service("new", v1.ServiceTypeLoadBalancer, "", ""),
		service("old", v1.ServiceTypeLoadBalancer, "10.9.0.1", ""),
		service("asks", v1.ServiceTypeLoadBalancer, "", "10.9.0.9"),
		service("plain", v1.ServiceTypeClusterIP, "", ""),
		service("was", v1.ServiceTypeClusterIP, "10.9.0.3", ""),
	}, netip.MustParsePrefix("10.9.0.0/24"))
	want := map[string]string{"new": "10.9.0.2", "asks": "10.9.0.9", "was": "invalid IP"}
	if len(got) != len(want) {
		t.Fatal(got)
	}
	for _, change := range got {
		if change.address.String() != want[change.service.Name] {
			t.Errorf("%s: %s", change.service.Name, change.address)
		}
	}
}

func TestTally(t *testing.T) {
	counts := newTally(&v1.Probe{SuccessThreshold: 2, FailureThreshold: 2})
	for i, step := range []struct{ ok, passed, failed bool }{
		{true, false, false}, {true, true, false}, {false, false, false}, {true, false, false}, {false, false, false}, {false, false, true},
	} {
		if passed, failed := counts.add(step.ok); passed != step.passed || failed != step.failed {
			t.Errorf("step %d: %v %v", i, passed, failed)
		}
	}
}

func TestRestartable(t *testing.T) {
	ended := func(r role, code int32) *container {
		return &container{role: r, exit: &v1.ContainerStateTerminated{ExitCode: code}}
	}
	for i, test := range []struct {
		c      *container
		policy v1.RestartPolicy
		want   bool
	}{
		{&container{role: roleMain}, v1.RestartPolicyNever, true},
		{ended(roleMain, 0), v1.RestartPolicyAlways, true},
		{ended(roleMain, 0), v1.RestartPolicyOnFailure, false},
		{ended(roleMain, 1), v1.RestartPolicyOnFailure, true},
		{ended(roleMain, 1), v1.RestartPolicyNever, false},
		{ended(roleSetup, 0), v1.RestartPolicyAlways, false},
		{ended(roleSetup, 1), v1.RestartPolicyAlways, true},
		{ended(roleSetup, 1), v1.RestartPolicyNever, false},
		{ended(roleSidecar, 0), v1.RestartPolicyNever, true},
	} {
		if got := test.c.restartable(test.policy); got != test.want {
			t.Errorf("case %d: %v", i, got)
		}
	}
}
