package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"image"
	"image/color"
	"image/jpeg"
	_ "image/png" // photos are JPEG or PNG
	"io"
	"io/fs"
	"os"

	"ontagent/agent/record"
	"ontagent/cmd/ontctl/render"
)

// A picture on a page is small: for the photo itself there is the file.
const (
	thumbnailSide   = 320       // pixels
	maxPicturePixel = 64 << 20  // larger ones are not decoded: they would take a GiB
	maxThumbnails   = 512 << 10 // bytes in all, so that the page can still be mailed
)

// findAttachments looks for a receipt's files in dir, and in nothing that dir
// leads out to. It reports whether one is there that is not the one named.
func findAttachments(dir string, list []record.Attachment) (files map[string]render.File, swapped bool, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	files, room := map[string]render.File{}, maxThumbnails
	for _, a := range list {
		data, err := readAttachment(root, a.Name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			files[a.Name] = render.File{State: render.FileMissing}
			continue
		case err != nil:
			return nil, false, fmt.Errorf("%s: %w", clean(a.Name), err)
		}
		if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != a.SHA256 || int64(len(data)) != a.Bytes {
			files[a.Name] = render.File{State: render.FileSwapped}
			swapped = true
			continue
		}
		f := render.File{State: render.FileThere}
		if small := thumbnail(data); len(small) > 0 && len(small) <= room {
			room -= len(small)
			// What was decoded and encoded anew carries no place and no script.
			f.Thumbnail = template.URL("data:image/jpeg;base64," + base64.StdEncoding.EncodeToString(small)) //nolint:gosec // see above
		}
		files[a.Name] = f
	}
	return files, swapped, nil
}

// readAttachment reads a file; one that is larger than any attachment comes cut,
// and so with another digest.
func readAttachment(root *os.Root, name string) ([]byte, error) {
	if !record.ValidAttachmentName(name) {
		return nil, fs.ErrNotExist // no file of a receipt has such a name
	}
	info, err := root.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	return io.ReadAll(io.LimitReader(f, record.MaxAttachment+1))
}

// thumbnail returns a small JPEG of a picture; nil of what is none.
func thumbnail(data []byte) []byte {
	config, _, err := image.DecodeConfig(bytes.NewReader(data))
	if err != nil || config.Width <= 0 || config.Height <= 0 || int64(config.Width)*int64(config.Height) > maxPicturePixel {
		return nil
	}
	src, _, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		return nil
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, shrink(src), &jpeg.Options{Quality: 75}); err != nil {
		return nil
	}
	return b.Bytes()
}

// shrink fits a picture into the thumbnail, on white. Each pixel is the mean of
// up to 64 of the original's.
func shrink(src image.Image) image.Image {
	in := src.Bounds()
	w, h := in.Dx(), in.Dy()
	if longest := max(w, h); longest > thumbnailSide {
		w, h = max(1, w*thumbnailSide/longest), max(1, h*thumbnailSide/longest)
	}
	out := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		y0, y1 := in.Min.Y+y*in.Dy()/h, in.Min.Y+(y+1)*in.Dy()/h
		for x := range w {
			x0, x1 := in.Min.X+x*in.Dx()/w, in.Min.X+(x+1)*in.Dx()/w
			out.Set(x, y, mean(src, x0, y0, max(x1, x0+1), max(y1, y0+1)))
		}
	}
	return out
}

func mean(src image.Image, x0, y0, x1, y1 int) color.Color {
	var r, g, b, n uint64
	for y := y0; y < y1; y += max(1, (y1-y0)/8) {
		for x := x0; x < x1; x += max(1, (x1-x0)/8) {
			pr, pg, pb, pa := src.At(x, y).RGBA() // premultiplied, of 0xffff
			white := 0xffff - uint64(pa)
			r, g, b, n = r+uint64(pr)+white, g+uint64(pg)+white, b+uint64(pb)+white, n+1
		}
	}
	return color.RGBA64{uint16(r / n), uint16(g / n), uint16(b / n), 0xffff}
}
