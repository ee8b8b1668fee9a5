package run

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// assets makes a directory as envtest has it, and names it.
func assets(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv(assetsVariable, dir)
	return dir
}

func TestPartsComeFromTheDirectoryThatIsNamedWhereItHasThem(t *testing.T) {
	dir := assets(t, "etcd", "kube-apiserver", "kubectl")
	// As parts see it, which are started elsewhere.
	t.Chdir(filepath.Dir(dir))
	t.Setenv(assetsVariable, filepath.Base(dir))
	found, err := findPrograms()
	if err != nil {
		t.Fatal(err)
	}
	want := programs{
		"etcd":           filepath.Join(dir, "etcd"),
		"kube-apiserver": filepath.Join(dir, "kube-apiserver"),
	}
	if !reflect.DeepEqual(found, want) {
		t.Errorf("%v instead of %v", found, want)
	}
	if got := found.command("etcd"); !reflect.DeepEqual(got, []string{want["etcd"]}) {
		t.Errorf("etcd is run as %v", got)
	}
	own := []string{"/proc/self/exe", "kube-scheduler"}
	if got := found.command("kube-scheduler"); !reflect.DeepEqual(got, own) {
		t.Errorf("the scheduler is run as %v", got)
	}
}

func TestADirectoryWithoutAnAPIServerIsRefusedByName(t *testing.T) {
	dir := assets(t, "etcd", "kubectl")
	_, err := findPrograms()
	if err == nil || !strings.Contains(err.Error(), dir+", which has no kube-apiserver") {
		t.Errorf("%v", err)
	}
}

func TestWhatCannotRunIsRefused(t *testing.T) {
	dir := assets(t, "etcd", "kube-apiserver")
	if err := os.Chmod(filepath.Join(dir, "etcd"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := findPrograms()
	if err == nil || !strings.Contains(err.Error(), "etcd is not a program") {
		t.Errorf("%v", err)
	}
}

func TestWithoutADirectoryEverythingIsBuiltIn(t *testing.T) {
	t.Setenv(assetsVariable, "")
	found, err := findPrograms()
	if err != nil || len(found) != 0 {
		t.Errorf("%v, %v", found, err)
	}
}
