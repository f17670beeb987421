package scenario

import "ontagent/agent/diagnosis"

// uncovered says of each code that no scenario of ours expects why that is so.
func uncovered() map[diagnosis.Code]string {
	return map[diagnosis.Code]string{}
}
