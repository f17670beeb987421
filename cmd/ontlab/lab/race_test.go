//go:build race

package lab_test

// raceDetector: the tests run with the race detector, so the programs do, too.
const raceDetector = true
