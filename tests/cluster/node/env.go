package node

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/kubernetes/pkg/fieldpath"
	"k8s.io/kubernetes/pkg/kubelet/envvars"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
)

// sources gives the objects that a pod's environment and volumes refer to. A
// missing object is an error for which apierrors.IsNotFound holds.
type sources interface {
	configMap(namespace, name string) (*v1.ConfigMap, error)
	secret(namespace, name string) (*v1.Secret, error)
	services(namespace string) []*v1.Service
}

// environment is the variables of a container as NAME=value, and as a map for
// the expansion of $(NAME) in its command. common are those of every container.
func environment(pod *v1.Pod, c *v1.Container, src sources, common []string) ([]string, map[string]string, error) {
	values := map[string]string{}
	var order []string
	set := func(name, value string) {
		if _, known := values[name]; !known {
			order = append(order, name)
		}
		values[name] = value
	}
	set("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	set("HOME", "/")
	set("HOSTNAME", pod.Name)
	for _, e := range common {
		name, value, _ := strings.Cut(e, "=")
		set(name, value)
	}
	for _, e := range serviceVariables(pod, src) {
		set(e.Name, e.Value)
	}
	for _, from := range c.EnvFrom {
		if err := setAll(pod, from, src, set); err != nil {
			return nil, nil, err
		}
	}
	expand := expansion.MappingFuncFor(values)
	for _, e := range c.Env {
		value, found, err := variable(pod, c, e, src)
		if err != nil {
			return nil, nil, fmt.Errorf("variable %s: %w", e.Name, err)
		}
		if e.ValueFrom == nil {
			value, found = expansion.Expand(e.Value, expand), true
		}
		if found {
			set(e.Name, value)
		}
	}
	out := make([]string, 0, len(order))
	for _, name := range order {
		out = append(out, name+"="+values[name])
	}
	return out, values, nil
}

// serviceVariables are those of the Services of the pod's namespace and of the
// API server.
func serviceVariables(pod *v1.Pod, src sources) []v1.EnvVar {
	var chosen []*v1.Service
	for _, s := range src.services("default") {
		if s.Name == "kubernetes" {
			chosen = append(chosen, s)
		}
	}
	if pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks {
		for _, s := range src.services(pod.Namespace) {
			if s.Name != "kubernetes" && len(s.Spec.Ports) > 0 {
				chosen = append(chosen, s)
			}
		}
	}
	sort.Slice(chosen, func(i, j int) bool { return chosen[i].Name < chosen[j].Name })
	return envvars.FromServices(chosen)
}

// setAll sets every key of a ConfigMap or Secret.
func setAll(pod *v1.Pod, from v1.EnvFromSource, src sources, set func(name, value string)) error {
	data, err := map[string]string{}, error(nil)
	optional := false
	switch {
	case from.ConfigMapRef != nil:
		optional = isTrue(from.ConfigMapRef.Optional)
		data, err = stringData(src.configMap(pod.Namespace, from.ConfigMapRef.Name))
	case from.SecretRef != nil:
		optional = isTrue(from.SecretRef.Optional)
		data, err = secretData(src.secret(pod.Namespace, from.SecretRef.Name))
	}
	if err != nil && !optional {
		return err
	}
	keys := make([]string, 0, len(data))
	for key := range data {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		set(from.Prefix+key, data[key])
	}
	return nil
}

// variable finds the value of a variable with valueFrom; false when an optional
// source is missing.
func variable(pod *v1.Pod, c *v1.Container, e v1.EnvVar, src sources) (string, bool, error) {
	from := e.ValueFrom
	switch {
	case from == nil:
		return "", false, nil
	case from.FieldRef != nil:
		value, err := podField(pod, from.FieldRef.FieldPath)
		return value, err == nil, err
	case from.ResourceFieldRef != nil:
		return resourceField(c, from.ResourceFieldRef), true, nil
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		data, err := stringData(src.configMap(pod.Namespace, ref.Name))
		return pick(data, err, "ConfigMap "+ref.Name, ref.Key, isTrue(ref.Optional))
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		data, err := secretData(src.secret(pod.Namespace, ref.Name))
		return pick(data, err, "Secret "+ref.Name, ref.Key, isTrue(ref.Optional))
	}
	return "", false, fmt.Errorf("unknown kind of source")
}

func pick(data map[string]string, err error, what, key string, optional bool) (string, bool, error) {
	if err == nil {
		if value, ok := data[key]; ok {
			return value, true, nil
		}
		err = fmt.Errorf("%s has no key %s", what, key)
	}
	if optional {
		err = nil
	}
	return "", false, err
}

// podField is a field of the downward API.
func podField(pod *v1.Pod, path string) (string, error) {
	switch path {
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.podIP":
		return pod.Status.PodIP, nil
	case "status.hostIP":
		return pod.Status.HostIP, nil
	case "status.podIPs":
		var all []string
		for _, ip := range pod.Status.PodIPs {
			all = append(all, ip.IP)
		}
		return strings.Join(all, ","), nil
	case "status.hostIPs":
		return pod.Status.HostIP, nil
	}
	return fieldpath.ExtractFieldPathAsString(pod, path)
}

// capacity of a node, and of a container without limits.
var capacity = v1.ResourceList{
	v1.ResourceCPU:              resource.MustParse("16"),
	v1.ResourceMemory:           resource.MustParse("32Gi"),
	v1.ResourcePods:             resource.MustParse("250"),
	v1.ResourceEphemeralStorage: resource.MustParse("100Gi"),
}

// resourceField is a limit or request in units of the divisor, rounded up.
func resourceField(c *v1.Container, ref *v1.ResourceFieldSelector) string {
	kind, name, _ := strings.Cut(ref.Resource, ".")
	set := c.Resources.Limits
	if kind == "requests" {
		set = c.Resources.Requests
	}
	amount, ok := set[v1.ResourceName(name)]
	if !ok && kind == "limits" {
		amount = capacity[v1.ResourceName(name)]
	}
	unit := ref.Divisor.MilliValue()
	if unit == 0 {
		unit = 1000
	}
	return fmt.Sprint((amount.MilliValue() + unit - 1) / unit)
}

func stringData(c *v1.ConfigMap, err error) (map[string]string, error) {
	if err != nil {
		return nil, err
	}
	return c.Data, nil
}

func secretData(s *v1.Secret, err error) (map[string]string, error) {
	if err != nil {
		return nil, err
	}
	data := map[string]string{}
	for key, value := range s.Data {
		data[key] = string(value)
	}
	return data, nil
}

func isTrue(b *bool) bool { return b != nil && *b }
