package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ambientd/cluster/node/sandbox"
)

func TestAnImageIsAProgramByItsAbsolutePath(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("program", nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("text", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	got, err := CheckImage("a=program --flag x")
	if want := "a=" + filepath.Join(here, "program") + " --flag x"; err != nil || got != want {
		t.Errorf("%q, %v instead of %q", got, err, want)
	}
	got, err = CheckImage("a=program,./program x")
	path := filepath.Join(here, "program")
	if want := "a=" + path + "," + path + " x"; err != nil || got != want {
		t.Errorf("%q, %v instead of %q", got, err, want)
	}
	for value, want := range map[string]string{
		"a=program,":              "is not a program",
		"a=program,absent":        "no such file",
		"a":                       "is not NAME=PROGRAM",
		"=program":                "is not NAME=PROGRAM",
		"a= ":                     "is not NAME=PROGRAM",
		"docker.io/x/a:1=program": `only the last part of a name is known to nodes: "a"`,
		"a=absent":                "no such file",
		"a=text":                  "is not a program",
		"a=.":                     "is not a program",
	} {
		if _, err := CheckImage(value); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v instead of %q", value, err, want)
		}
	}
}

func TestACommandMayBeAProgramOfAVolume(t *testing.T) {
	envoy := program{argv: []string{"/usr/local/bin/envoy"}, mounts: []sandbox.Mount{{Target: "/usr/local/bin/envoy"}}}
	volumes := []sandbox.Mount{{Target: "/agent"}, {Target: "/etc/hosts"}}
	for command, want := range map[string]string{
		"/agent/ambientd":          "/agent/ambientd proxy router",
		"/usr/local/bin/envoy":     "/usr/local/bin/envoy proxy router",
		"/agents/ambientd":         "/usr/local/bin/envoy proxy router",
		"/nowhere/of/this/machine": "/usr/local/bin/envoy proxy router",
	} {
		argv := commandLine([]string{command}, []string{"proxy", "router"}, envoy, exists(envoy, volumes))
		if got := strings.Join(argv, " "); got != want {
			t.Errorf("%s runs %q instead of %q", command, got, want)
		}
	}
}
