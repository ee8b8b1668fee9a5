package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	authentication "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	volumeutil "k8s.io/kubernetes/pkg/volume/util"
)

// volumes are the directories of a pod's volumes.
type volumes struct {
	dir       string // <state>/pods/<uid>/volumes
	hostRoot  string // below which hostPath volumes live
	hostPaths []string
	src       sources
	// token asks the API server for a service account token.
	token func(ctx context.Context, pod *v1.Pod, p *v1.ServiceAccountTokenProjection) (*authentication.TokenRequestStatus, error)
	// tokens already issued, by volume name and path.
	tokens map[string]issued
}

// issued is a token and the time at which it is replaced.
type issued struct {
	token string
	renew time.Time
}

type files = map[string]volumeutil.FileProjection

// path of a volume's directory (for hostPath: of the path itself).
func (v *volumes) path(volume *v1.Volume) string {
	if volume.HostPath == nil {
		return filepath.Join(v.dir, volume.Name)
	}
	for _, allowed := range v.hostPaths {
		if path := volume.HostPath.Path; path == allowed || strings.HasPrefix(path, strings.TrimSuffix(allowed, "/")+"/") {
			return path
		}
	}
	return filepath.Join(v.hostRoot, volume.HostPath.Path)
}

// write brings every volume up to date; files are replaced atomically, as the
// kubelet does. An error names the first volume that cannot be made yet.
func (v *volumes) write(ctx context.Context, pod *v1.Pod) error {
	for i := range pod.Spec.Volumes {
		if err := v.writeOne(ctx, pod, &pod.Spec.Volumes[i]); err != nil {
			return fmt.Errorf("MountVolume.SetUp failed for volume %q: %w", pod.Spec.Volumes[i].Name, err)
		}
	}
	return nil
}

func (v *volumes) writeOne(ctx context.Context, pod *v1.Pod, volume *v1.Volume) error {
	dir := v.path(volume)
	if volume.HostPath != nil {
		return makeHostPath(dir, volume.HostPath.Type)
	}
	content, err := v.content(ctx, pod, volume)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if volume.EmptyDir != nil {
		return os.Chmod(dir, 0o777)
	}
	writer, err := volumeutil.NewAtomicWriter(dir, pod.Name+"/"+volume.Name)
	if err != nil {
		return err
	}
	return writer.Write(content, nil)
}

func makeHostPath(path string, kind *v1.HostPathType) error {
	if kind != nil && (*kind == v1.HostPathFileOrCreate || *kind == v1.HostPathFile) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		file, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
		if err != nil {
			return err
		}
		return file.Close()
	}
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	return os.MkdirAll(path, 0o755)
}

// content is the files of a volume that is made of objects.
func (v *volumes) content(ctx context.Context, pod *v1.Pod, volume *v1.Volume) (files, error) {
	out := files{}
	switch s := volume.VolumeSource; {
	case s.EmptyDir != nil:
		return out, nil
	case s.ConfigMap != nil:
		return out, v.addConfigMap(out, pod, s.ConfigMap.Name, s.ConfigMap.Items, s.ConfigMap.Optional, s.ConfigMap.DefaultMode)
	case s.Secret != nil:
		return out, v.addSecret(out, pod, s.Secret.SecretName, s.Secret.Items, s.Secret.Optional, s.Secret.DefaultMode)
	case s.DownwardAPI != nil:
		return out, addFields(out, pod, s.DownwardAPI.Items, s.DownwardAPI.DefaultMode)
	case s.Projected != nil:
		for i := range s.Projected.Sources {
			if err := v.addProjection(ctx, out, pod, volume.Name, &s.Projected.Sources[i], s.Projected.DefaultMode); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return nil, fmt.Errorf("this node knows no volumes of this kind")
}

func (v *volumes) addProjection(ctx context.Context, out files, pod *v1.Pod, volume string, p *v1.VolumeProjection, mode *int32) error {
	switch {
	case p.ConfigMap != nil:
		return v.addConfigMap(out, pod, p.ConfigMap.Name, p.ConfigMap.Items, p.ConfigMap.Optional, mode)
	case p.Secret != nil:
		return v.addSecret(out, pod, p.Secret.Name, p.Secret.Items, p.Secret.Optional, mode)
	case p.DownwardAPI != nil:
		return addFields(out, pod, p.DownwardAPI.Items, mode)
	case p.ServiceAccountToken != nil:
		token, err := v.freshToken(ctx, pod, volume, p.ServiceAccountToken)
		if err != nil {
			return err
		}
		// Readable by every user of the container, whoever that is.
		out[p.ServiceAccountToken.Path] = volumeutil.FileProjection{Data: []byte(token), Mode: 0o644}
		return nil
	case p.ClusterTrustBundle != nil && isTrue(p.ClusterTrustBundle.Optional):
		return nil
	}
	return fmt.Errorf("this node knows no projections of this kind")
}

// freshToken renews a token when 80% of its life is over, as the kubelet does.
func (v *volumes) freshToken(ctx context.Context, pod *v1.Pod, volume string, p *v1.ServiceAccountTokenProjection) (string, error) {
	key := volume + "/" + p.Path
	if old, ok := v.tokens[key]; ok && time.Now().Before(old.renew) {
		return old.token, nil
	}
	status, err := v.token(ctx, pod, p)
	if err != nil {
		return "", err
	}
	life := time.Until(status.ExpirationTimestamp.Time)
	v.tokens[key] = issued{token: status.Token, renew: time.Now().Add(life * 8 / 10)}
	return status.Token, nil
}

func (v *volumes) addConfigMap(out files, pod *v1.Pod, name string, items []v1.KeyToPath, optional *bool, mode *int32) error {
	object, err := v.src.configMap(pod.Namespace, name)
	if err != nil {
		return unless(isTrue(optional), err)
	}
	data := map[string][]byte{}
	for key, value := range object.Data {
		data[key] = []byte(value)
	}
	for key, value := range object.BinaryData {
		data[key] = value
	}
	return addItems(out, data, "configmap "+name, items, isTrue(optional), mode)
}

func (v *volumes) addSecret(out files, pod *v1.Pod, name string, items []v1.KeyToPath, optional *bool, mode *int32) error {
	object, err := v.src.secret(pod.Namespace, name)
	if err != nil {
		return unless(isTrue(optional), err)
	}
	return addItems(out, object.Data, "secret "+name, items, isTrue(optional), mode)
}

func addItems(out files, data map[string][]byte, what string, items []v1.KeyToPath, optional bool, mode *int32) error {
	if len(items) == 0 {
		for key, value := range data {
			out[key] = volumeutil.FileProjection{Data: value, Mode: modeOf(nil, mode)}
		}
		return nil
	}
	for _, item := range items {
		value, ok := data[item.Key]
		switch {
		case ok:
			out[item.Path] = volumeutil.FileProjection{Data: value, Mode: modeOf(item.Mode, mode)}
		case !optional:
			return fmt.Errorf("%s references non-existent key: %s", what, item.Key)
		}
	}
	return nil
}

func addFields(out files, pod *v1.Pod, items []v1.DownwardAPIVolumeFile, mode *int32) error {
	for _, item := range items {
		var value string
		var err error
		switch {
		case item.FieldRef != nil:
			value, err = podField(pod, item.FieldRef.FieldPath)
		case item.ResourceFieldRef != nil:
			for i := range pod.Spec.Containers {
				if c := &pod.Spec.Containers[i]; c.Name == item.ResourceFieldRef.ContainerName {
					value = resourceField(c, item.ResourceFieldRef)
				}
			}
		}
		if err != nil {
			return err
		}
		out[item.Path] = volumeutil.FileProjection{Data: []byte(value), Mode: modeOf(item.Mode, mode)}
	}
	return nil
}

// modeOf lets everybody read: containers run as users that own no file here.
func modeOf(item, all *int32) int32 {
	for _, mode := range []*int32{item, all} {
		if mode != nil {
			return *mode | 0o444
		}
	}
	return 0o644
}

func unless(optional bool, err error) error {
	if optional {
		return nil
	}
	return err
}
