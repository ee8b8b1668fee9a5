// Package sandbox turns a process into a container: a root file system of its
// own, the mounts of its pod, a user, and nothing left behind.
//
// The node starts `node-container SPEC` in new mount, PID, UTS and IPC
// namespaces and in the pod's network namespace. That process becomes the init
// of the container (see [Init]). `node-exec` enters the same namespaces later
// (see [Exec]).
//
// The package depends on the standard library and x/sys alone, and its init
// function takes over when the binary was started for it: Go initialises
// packages in the order of their import paths, so that none of the Kubernetes
// packages in the same binary is initialised in a container's process.
package sandbox

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Names of the hidden subcommands of the binary.
const (
	// InitCommand is followed by the path of a Spec.
	InitCommand = "node-container"
	// ExecCommand is followed by the path of a Spec, the process id of the
	// container's init and the command.
	ExecCommand = "node-exec"
)

// Spec is all that a container's process needs to know; the node writes it
// as JSON.
type Spec struct {
	// Scratch is an empty directory on which the memory file system with the
	// container's own files is mounted (seen by the container alone).
	Scratch string
	// Hostname of the pod.
	Hostname string
	// Mounts, bound in the order of their targets.
	Mounts []Mount
	// Env as NAME=value.
	Env []string
	// Argv is the command; its first word is searched in PATH.
	Argv []string
	// Dir is the working directory; "/" when empty.
	Dir string
	// UID, GID and Groups the command runs with.
	UID, GID uint32
	Groups   []uint32
}

// Mount binds a file or directory of the machine into the container.
type Mount struct {
	Source, Target string
	ReadOnly       bool
}

// Write stores the spec at path.
func (s *Spec) Write(path string) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}

// Read loads a spec written by [Spec.Write].
func Read(path string) (*Spec, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	spec := new(Spec)
	if err := json.Unmarshal(data, spec); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return spec, nil
}

// lookPath finds a command in the PATH of env, relative to the current root.
func lookPath(command string, env []string) (string, error) {
	if strings.Contains(command, "/") {
		return command, nil
	}
	for _, dir := range filepath.SplitList(pathOf(env)) {
		full := filepath.Join(dir, command)
		if info, err := os.Stat(full); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return full, nil
		}
	}
	return "", fmt.Errorf("exec: %q: executable file not found in $PATH", command)
}

func pathOf(env []string) string {
	for _, entry := range env {
		if value, ok := strings.CutPrefix(entry, "PATH="); ok {
			return value
		}
	}
	return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

// init takes over before any package of Kubernetes is initialised.
func init() {
	if len(os.Args) < 2 {
		return
	}
	switch os.Args[1] {
	case InitCommand:
		os.Exit(Init(os.Args[2:]))
	case ExecCommand:
		os.Exit(Exec(os.Args[2:]))
	}
}

// fail prints why a container could not start and returns the exit code that
// container runtimes use for it.
func fail(err error) int {
	fmt.Fprintf(os.Stderr, "container: %v\n", err)
	return 128
}
