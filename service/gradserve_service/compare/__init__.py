"""`gradserve compare`: one real problem under every optimizer, with numbers where textbooks have words."""
