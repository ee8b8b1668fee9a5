package conformance

import (
	"strings"
	"testing"

	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

func TestClaimsAreHeldAgainstWhatTheSuiteKnows(t *testing.T) {
	text := string(claimsFile)
	for change, want := range map[string]string{
		strings.Replace(text, "- HTTPRouteCORS\n", "", 1):                              "HTTPRouteCORS is neither claimed nor left out",
		strings.Replace(text, "- HTTPRouteCORS\n", "- HTTPRouteCORZ\n", 1):             "the suite knows no feature HTTPRouteCORZ",
		strings.Replace(text, "- HTTPRouteCORS\n", "- HTTPRouteCORS\n- UDPRoute\n", 1): "UDPRoute stands there twice",
		text + "  GatewayPort8081: ''\n":                                               "GatewayPort8081 is left out without a reason",
		text + "others: []\n":                                                          "unknown field",
	} {
		if _, err := readClaims([]byte(change)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestTestsAreChosenBySideProfileAndName(t *testing.T) {
	test := func(name string, all ...features.FeatureName) suite.ConformanceTest {
		return suite.ConformanceTest{ShortName: name, Features: all}
	}
	all := []suite.ConformanceTest{
		test("Plain", features.SupportGateway),
		test("HTTP", features.SupportGateway, features.SupportHTTPRoute),
		test("GRPC", features.SupportGateway, features.SupportGRPCRoute),
		test("Mesh", features.SupportMesh),
	}
	for _, it := range []struct {
		side, profile string
		names         []string
		want          string
	}{
		{"gateway", "", nil, "Plain HTTP GRPC"},
		{"gateway", "GATEWAY-GRPC", nil, "Plain GRPC"},
		{"gateway", "", []string{"GRPC", "HTTP"}, "HTTP GRPC"},
		{"mesh", "MESH-HTTP", nil, "Mesh"},
		{"mesh", "", []string{"HTTP"}, "error"},
		{"mesh", "GATEWAY-HTTP", nil, "error"},
		{"gateway", "", []string{"HTTQ"}, "error"},
	} {
		s, err := sideOf(it.side)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		chosen, err := s.choose(all, it.profile, it.names)
		if err != nil {
			got = []string{"error"}
		}
		for _, one := range chosen {
			got = append(got, one.ShortName)
		}
		if strings.Join(got, " ") != it.want {
			t.Errorf("%+v: got %v (%v)", it, got, err)
		}
	}
}
