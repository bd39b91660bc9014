# Thin aliases: the scripts need no make.
.PHONY: run test check install uninstall
run:
	./packaging/run
test:
	./packaging/test
check:
	./.ci/run
install:
	./packaging/install
uninstall:
	./packaging/uninstall
