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

// images maps image names to their programs, joined by commas, and first arguments.
type images map[string][]string

func (i images) String() string { return strings.Join(i.names(), ",") }

// Set implements flag.Value: NAME=PROGRAM[,PROGRAM...] [ARGS...].
func (i images) Set(value string) error {
	name, words, err := parseImage(value)
	if err == nil {
		i[name] = words
	}
	return err
}

// CheckImage says what is wrong with an image as flags name it:
// NAME=PROGRAM[,PROGRAM...] [ARGS...]. Containers run the first program with
// these arguments; the others are there too, by the names of their files. The
// answer is the same with absolute paths, good in any directory.
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
		return "", nil, fmt.Errorf("image %q is not NAME=PROGRAM[,PROGRAM...] [ARGS...]", value)
	case imageName(name) != name:
		return "", nil, fmt.Errorf("image %s: only the last part of a name is known to nodes: %q",
			name, imageName(name))
	}
	paths := strings.Split(words[0], ",")
	for n := range paths {
		if paths[n], err = absoluteProgram(paths[n]); err != nil {
			return "", nil, fmt.Errorf("image %s: %w", name, err)
		}
	}
	words[0] = strings.Join(paths, ",")
	return name, words, nil
}

func absoluteProgram(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	if err == nil && (info.IsDir() || info.Mode()&0o111 == 0) {
		err = fmt.Errorf("%s is not a program", path)
	}
	return path, err
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
		var mounts []sandbox.Mount
		for n, path := range strings.Split(words[0], ",") {
			file := filepath.Base(path)
			if n == 0 {
				file = name
			}
			mounts = append(mounts, sandbox.Mount{Source: path, Target: "/usr/local/bin/" + file, ReadOnly: true})
		}
		argv := append([]string{mounts[0].Target}, words[1:]...)
		return program{argv: argv, mounts: mounts}, nil
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
