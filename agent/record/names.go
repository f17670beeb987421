package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// maxDepth bounds the nesting of a payload.
const maxDepth = 64

// checkNames refuses content that two readers could read differently: a name
// that stands twice in one object, in whatever case – some readers take the
// first, some the last, and encoding/json looks at no case – and a name of the
// outermost object that no agent writes so.
func checkNames(payload []byte) error {
	dec := json.NewDecoder(bytes.NewReader(payload))
	type level struct {
		names map[string]bool // nil in an array
		key   bool            // a name comes next
	}
	var stack []level
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		top := len(stack) - 1
		if name, ok := tok.(string); ok && top >= 0 && stack[top].key {
			folded := strings.Map(foldRune, name)
			switch {
			case stack[top].names[folded]:
				return fmt.Errorf("member %.80q stands twice", name)
			case top == 0 && strings.ToLower(name) != name:
				return fmt.Errorf("member %.80q is not known in this case", name)
			}
			stack[top].names[folded] = true
			stack[top].key = false
			continue
		}
		switch tok {
		case json.Delim('{'):
			stack = append(stack, level{names: map[string]bool{}, key: true})
		case json.Delim('['):
			stack = append(stack, level{})
		case json.Delim('}'), json.Delim(']'):
			stack = stack[:top]
			top--
		}
		if len(stack) > maxDepth {
			return errors.New("nested too deeply")
		}
		// After a value its object expects a name again; a value that has just
		// begun is its own top.
		if top >= 0 && top == len(stack)-1 {
			stack[top].key = stack[top].names != nil
		}
	}
}

// foldRune returns the smallest of the runes that differ from r by case only.
func foldRune(r rune) rune {
	least := r
	for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
		least = min(least, next)
	}
	return least
}
