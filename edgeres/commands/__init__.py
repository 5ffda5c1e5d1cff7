"""What each command does: arguments in, a JSON-ready result out (`edgeres.text` renders it)."""
