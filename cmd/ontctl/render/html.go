package render

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the template and its style
	"encoding/base64"
	"fmt"
	"html/template"
	"io"

	"ontagent/agent/diagnosis"
)

//go:embed page.gohtml
var pageTemplate string

//go:embed page.css
var pageStyle string

// HTML writes the page as one file that needs nothing else: no script, no font,
// no picture from elsewhere. Its policy forbids them all, and every style but
// its own.
func (p *Page) HTML(w io.Writer) error {
	sum := sha256.Sum256([]byte(pageStyle))
	tmpl, err := template.New("page").Funcs(template.FuncMap{
		"t":     func(key string) string { return p.x.T(key) },
		"label": func(key string) string { return p.x.w(diagnosis.KeyLabel + key) },
	}).Parse(pageTemplate)
	if err != nil {
		return fmt.Errorf("cannot read template: %w", err)
	}
	var page bytes.Buffer
	err = tmpl.Execute(&page, struct {
		*Page
		Lang   diagnosis.Lang
		Style  template.CSS
		Policy string
	}{
		p, p.x.lang, template.CSS(pageStyle), //nolint:gosec // our own
		"default-src 'none'; img-src data:; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'",
	})
	if err != nil {
		return fmt.Errorf("cannot fill in template: %w", err)
	}
	// Once more over the whole: nothing turns the direction of writing.
	clean := bytes.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return r
		}
		return visible(r)
	}, page.Bytes())
	if _, err := w.Write(clean); err != nil {
		return fmt.Errorf("cannot write page: %w", err)
	}
	return nil
}
