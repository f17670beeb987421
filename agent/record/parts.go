package record

import (
	"encoding/json"
	"slices"
	"strconv"
)

// partDigits is how much of a SHA-256 tells parts apart, in hex digits. They
// only say where a record was altered; that it was, its signature says.
const partDigits = 8

// measurements is the member of a result whose elements are parts of their own.
const measurements = "measurements"

// ladderParts digests the members of each result, and each measurement by its
// name, by the result's section. What is no ladder has none.
func ladderParts(ladder []byte) map[string]map[string]string {
	var l struct {
		Results []json.RawMessage `json:"results"`
	}
	if json.Unmarshal(ladder, &l) != nil || len(l.Results) > maxResults {
		return nil
	}
	all := make(map[string]map[string]string, len(l.Results))
	for i, raw := range l.Results {
		var members map[string]json.RawMessage
		if json.Unmarshal(raw, &members) != nil {
			continue
		}
		var rung string
		_ = json.Unmarshal(members["rung"], &rung) // as in ladderDigests
		parts := map[string]string{}
		for name, member := range members {
			var list []json.RawMessage
			if name != measurements || json.Unmarshal(member, &list) != nil {
				parts["."+name] = digest(member)[:partDigits]
				continue
			}
			seen := map[string]int{}
			for _, m := range list {
				var head struct {
					Name string `json:"name"`
				}
				_ = json.Unmarshal(m, &head)
				seen[head.Name]++
				name := head.Name
				if n := seen[name]; n > 1 {
					name += "#" + strconv.Itoa(n)
				}
				parts[name] = digest(m)[:partDigits]
			}
		}
		all[resultSection(i, rung)] = parts
	}
	return all
}

// alteredParts names what differs within a result, and whether anything does.
func alteredParts(section string, signed, actual map[string]string) (names []string) {
	add := func(part string) {
		if part[:1] == "." {
			part = part[1:]
		}
		names = append(names, section+": "+part)
	}
	for part, d := range actual {
		if part != "" && signed[part] != d {
			add(part)
		}
	}
	for part := range signed {
		if _, ok := actual[part]; part != "" && !ok {
			add(part)
		}
	}
	slices.Sort(names)
	return names
}
