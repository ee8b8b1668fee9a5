package conformance

import (
	"cmp"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/sets"
	upstream "sigs.k8s.io/gateway-api/conformance"
	confv1 "sigs.k8s.io/gateway-api/conformance/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/tests"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
	"sigs.k8s.io/yaml"
)

// Beside these there are the suite's own flags.
var (
	sideFlag    = flag.String("side", "", "what to test: gateway or mesh; without it nothing is run")
	profileFlag = flag.String("profile", "", "only the tests of this profile")
	testsFlag   = flag.String("tests", "", "only these tests, comma separated, whether their features are claimed or not")
)

// TestConformance runs the suite. The report is written to -report-output, as the
// suite makes it but without the date.
func TestConformance(t *testing.T) {
	if *sideFlag == "" {
		t.Skip("-side is not given")
	}
	s, err := sideOf(*sideFlag)
	if err != nil {
		t.Fatal(err)
	}
	c, err := readClaims(claimsFile)
	if err != nil {
		t.Fatal(err)
	}
	names := strings.FieldsFunc(*testsFlag, func(r rune) bool { return r == ',' })
	chosen, err := s.choose(tests.ConformanceTests, *profileFlag, names)
	if err != nil {
		t.Fatal(err)
	}
	supported := s.features(c)
	if len(names) > 0 {
		for _, test := range chosen {
			supported.Insert(test.Features...)
		}
	}
	options := upstream.DefaultOptions(t)
	options.SupportedFeatures = sets.List(supported)
	options.ConformanceProfiles = nil
	for _, p := range s.profiles() {
		if *profileFlag == "" || *profileFlag == string(p.Name) {
			options.ConformanceProfiles = append(options.ConformanceProfiles, p.Name)
		}
	}
	run(t, options, chosen)
}

func run(t *testing.T, options suite.ConformanceOptions, chosen []suite.ConformanceTest) {
	s, err := suite.NewConformanceTestSuite(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d tests, features %v", len(chosen), options.SupportedFeatures)
	s.Setup(t, chosen)
	// After all tests, also those that run at the same time; a base that could not be
	// set up says nothing of any test and leaves the last report as it is.
	t.Cleanup(func() { writeReport(t, s, options.ReportOutputPath) })
	if err := s.Run(t, chosen); err != nil {
		t.Fatal(err)
	}
}

func writeReport(t *testing.T, s *suite.ConformanceTestSuite, path string) {
	if path == "" {
		return
	}
	report, err := s.Report()
	if err != nil {
		t.Fatal(err)
	}
	// Two runs with the same results have the same report.
	report.Date = ""
	slices.SortFunc(report.ProfileReports, func(a, b confv1.ProfileReport) int { return cmp.Compare(a.Name, b.Name) })
	for i := range report.ProfileReports {
		p := &report.ProfileReports[i]
		slices.Sort(p.Core.FailedTests)
		slices.Sort(p.Core.SkippedTests)
		if p.Extended != nil {
			slices.Sort(p.Extended.FailedTests)
			slices.Sort(p.Extended.SkippedTests)
		}
	}
	text, err := yaml.Marshal(report)
	if err == nil {
		err = os.WriteFile(path, text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// The file that is shipped fits the suite, and each test is of one side.
func TestClaimsFitTheSuite(t *testing.T) {
	c, err := readClaims(claimsFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range tests.ConformanceTests {
		gateway := slices.Contains(test.Features, features.SupportGateway)
		if mesh := slices.Contains(test.Features, features.SupportMesh); mesh == gateway {
			t.Errorf("%s is not of one side: %v", test.ShortName, test.Features)
		}
	}
	for _, s := range sides {
		for _, p := range s.profiles() {
			if missing := p.CoreFeatures.Difference(s.features(c)); missing.Len() > 0 {
				t.Errorf("%s needs %v, which is not claimed", p.Name, sets.List(missing))
			}
		}
	}
}
