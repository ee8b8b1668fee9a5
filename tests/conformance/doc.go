// Package conformance drives the conformance suite of the Gateway API against a
// cluster that ambientd serves.
//
//	features.yaml         what is claimed, and why the rest is not
//	claims.go             reads it; which tests are of a run
//	conformance_test.go   the run itself, compiled into a program by `go test -c`
//	claims_test.go        tests that need no cluster
//	echo-advanced/        the image of the mesh's tests: a server that describes
//	                      requests, and the client that they run inside its pods
//
// The image echo-basic is built from the suite itself (the tool of go.mod). See
// `cargo xtask conformance`.
package conformance
