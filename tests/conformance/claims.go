package conformance

import (
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/sets"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
	"sigs.k8s.io/yaml"
)

// claimsFile says what is claimed and why the rest is not.
//
//go:embed features.yaml
var claimsFile []byte

// claims are the features of claimsFile.
type claims struct {
	Claimed []features.FeatureName `json:"claimed"`
	// LeftOut holds the reason for each feature that is not claimed.
	LeftOut map[features.FeatureName]string `json:"leftOut"`
}

// readClaims reads the file and holds it against what the suite knows.
func readClaims(text []byte) (claims, error) {
	var c claims
	if err := yaml.UnmarshalStrict(text, &c); err != nil {
		return c, fmt.Errorf("features.yaml: %w", err)
	}
	known := features.SetsToNamesSet(features.AllFeatures)
	missing := known.Clone()
	var problems []error
	seen := func(name features.FeatureName) {
		switch {
		case missing.Has(name):
			missing.Delete(name)
		case known.Has(name):
			problems = append(problems, fmt.Errorf("%s stands there twice", name))
		default:
			problems = append(problems, fmt.Errorf("the suite knows no feature %s", name))
		}
	}
	for _, name := range c.Claimed {
		seen(name)
	}
	for name, reason := range c.LeftOut {
		seen(name)
		if reason == "" {
			problems = append(problems, fmt.Errorf("%s is left out without a reason", name))
		}
	}
	for _, name := range sets.List(missing) {
		problems = append(problems, fmt.Errorf("%s is neither claimed nor left out", name))
	}
	if err := errors.Join(problems...); err != nil {
		return c, fmt.Errorf("features.yaml: %w", err)
	}
	return c, nil
}

// side is what a run is about. Gateways and the mesh have runs of their own, for
// the namespaces of the mesh's tests alone have labels that enroll their pods.
type side struct {
	name string
	// core is the feature that every test of this side has, other that of the
	// other side, whose manifests are not even applied.
	core, other features.FeatureName
}

var sides = []side{
	{"gateway", features.SupportGateway, features.SupportMesh},
	{"mesh", features.SupportMesh, features.SupportGateway},
}

// sideOf finds the side by its name.
func sideOf(name string) (side, error) {
	for _, s := range sides {
		if s.name == name {
			return s, nil
		}
	}
	return side{}, fmt.Errorf("there is no side %q", name)
}

// profiles are those of the side that are reported.
func (s side) profiles() []suite.ConformanceProfile {
	if s.core == features.SupportMesh {
		return []suite.ConformanceProfile{suite.MeshHTTPConformanceProfile, suite.MeshGRPCConformanceProfile}
	}
	return []suite.ConformanceProfile{
		suite.GatewayHTTPConformanceProfile, suite.GatewayGRPCConformanceProfile, suite.GatewayTLSConformanceProfile,
	}
}

// features of a run: what is claimed, without the other side.
func (s side) features(c claims) sets.Set[features.FeatureName] {
	return sets.New(c.Claimed...).Delete(s.other)
}

// choose gives the tests of the side that belong to a profile or have one of the
// names; all of the side when neither is given.
func (s side) choose(all []suite.ConformanceTest, profile string, names []string) ([]suite.ConformanceTest, error) {
	var wanted *suite.ConformanceProfile
	for _, p := range s.profiles() {
		if string(p.Name) == profile {
			wanted = &p
		}
	}
	if profile != "" && wanted == nil {
		return nil, fmt.Errorf("side %s has no profile %s", s.name, profile)
	}
	var chosen []suite.ConformanceTest
	rest := sets.New(names...)
	for _, test := range all {
		named := rest.Has(test.ShortName)
		rest.Delete(test.ShortName)
		if !slices.Contains(test.Features, s.core) || (wanted != nil && !belongs(test, wanted)) {
			continue
		}
		if named || len(names) == 0 {
			chosen = append(chosen, test)
		}
	}
	if rest.Len() > 0 {
		return nil, fmt.Errorf("the suite has no test %s", strings.Join(sets.List(rest), ", "))
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("none of these tests is of side %s and profile %q", s.name, profile)
	}
	return chosen, nil
}

// belongs says whether all features of a test are of the profile.
func belongs(test suite.ConformanceTest, profile *suite.ConformanceProfile) bool {
	return !slices.ContainsFunc(test.Features, func(f features.FeatureName) bool {
		return !profile.CoreFeatures.Has(f) && !profile.ExtendedFeatures.Has(f)
	})
}
