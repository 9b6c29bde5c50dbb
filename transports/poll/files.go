package poll

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// writeFiles writes what is shown of a module into its folder below dir, which must be there: an empty mount point is not to be taken for it. A reader sees each
// file whole, before or after.
func writeFiles(dir, module string, files map[string]document) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("write: %w; create the folder, and let this process write there", err)
	}
	defer root.Close() //nolint:errcheck // what was written was closed
	if err := root.Mkdir(module, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("write %s: %w; let this process write there", filepath.Join(dir, module), err)
	}
	for _, name := range []string{feedFile, headFile} {
		if d, ok := files[name]; ok {
			if err := writeFile(root, module+"/"+name, d.body); err != nil {
				return fmt.Errorf("write %s: %w", filepath.Join(dir, module, name), err)
			}
		}
	}
	return nil
}

// writeFile exchanges one file. There is one writer, so that what a crash leaves behind is written over.
func writeFile(root *os.Root, name string, body []byte) error {
	temp := filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+".new")
	f, err := root.OpenFile(temp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(body)
	if err == nil { // the web server runs as somebody else, whatever our umask is
		err = f.Chmod(0o644)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return root.Rename(temp, name)
}
