package node

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"ambientd/cluster/node/programs"
	"ambientd/cluster/node/sandbox"
)

// programPath is where the node's own binary is seen in every container.
const programPath = "/usr/local/bin/.node"

// images maps image names to a program and its first arguments.
type images map[string][]string

func (i images) String() string { return strings.Join(i.names(), ",") }

// Set implements flag.Value: NAME=PROGRAM [ARGS...].
func (i images) Set(value string) error {
	name, words, err := parseImage(value)
	if err == nil {
		i[name] = words
	}
	return err
}

// CheckImage says what is wrong with an image as flags name it: NAME=PROGRAM
// [ARGS...]. The answer is the same with an absolute path, good in any directory.
func CheckImage(value string) (string, error) {
	name, words, err := parseImage(value)
	if err != nil {
		return "", err
	}
	return name + "=" + strings.Join(words, " "), nil
}

func parseImage(value string) (name string, words []string, err error) {
	name, command, ok := strings.Cut(value, "=")
	words = strings.Fields(command)
	switch {
	case !ok || name == "" || len(words) == 0:
		return "", nil, fmt.Errorf("image %q is not NAME=PROGRAM [ARGS...]", value)
	case imageName(name) != name:
		return "", nil, fmt.Errorf("image %s: only the last part of a name is known to nodes: %q",
			name, imageName(name))
	}
	if words[0], err = filepath.Abs(words[0]); err != nil {
		return "", nil, err
	}
	info, err := os.Stat(words[0])
	if err != nil {
		return "", nil, fmt.Errorf("image %s: %w", name, err)
	}
	if info.IsDir() || info.Mode()&0o111 == 0 {
		return "", nil, fmt.Errorf("image %s: %s is not a program", name, words[0])
	}
	return name, words, nil
}

func (i images) names() []string {
	names := programs.Names()
	for name := range i {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// imageName is the last path segment of an image reference, without tag and
// digest: docker.io/istio/proxyv2:1.30 is proxyv2.
func imageName(reference string) string {
	reference, _, _ = strings.Cut(reference, "@")
	name := reference[strings.LastIndex(reference, "/")+1:]
	name, _, _ = strings.Cut(name, ":")
	return name
}

// program is what a container runs.
type program struct {
	// argv of the image itself, before the container's args.
	argv []string
	// mounts that make the program visible in the container.
	mounts []sandbox.Mount
}

// lookup finds the program of an image. self is the path of the node's binary.
func (i images) lookup(reference, self string) (program, error) {
	name := imageName(reference)
	own := sandbox.Mount{Source: self, Target: programPath, ReadOnly: true}
	if words, ok := i[name]; ok {
		target := "/usr/local/bin/" + name
		argv := append([]string{target}, words[1:]...)
		mount := sandbox.Mount{Source: words[0], Target: target, ReadOnly: true}
		return program{argv: argv, mounts: []sandbox.Mount{mount}}, nil
	}
	for _, known := range programs.Names() {
		if known == name {
			argv := []string{programPath, programs.Command, name}
			return program{argv: argv, mounts: []sandbox.Mount{own}}, nil
		}
	}
	return program{}, fmt.Errorf("image %q is not known to this node, which knows: %s",
		reference, strings.Join(i.names(), ", "))
}

// commandLine is the command of a container: its own command when that program
// exists (in the image or on the machine), else the image's program, then args.
// exists says whether a word names a program.
func commandLine(command, args []string, p program, exists func(string) bool) []string {
	if len(command) > 0 && exists(command[0]) {
		return append(append([]string(nil), command...), args...)
	}
	argv := append([]string(nil), p.argv...)
	if len(command) > 1 {
		argv = append(argv, command[1:]...)
	}
	return append(argv, args...)
}
