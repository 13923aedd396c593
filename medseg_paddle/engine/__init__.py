"""The only room where Paddle lives. Import its modules, not the package: the package loads nothing."""
