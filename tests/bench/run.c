/* run: what a service directory of runit, s6 and daemontools calls its run file, without a shell. It becomes the program
 * whose words stand in the file `words` of its working directory, each ended by a NUL.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

int main(void) {
    static char text[4096];
    static char *words[32];
    int fd = open("words", O_RDONLY | O_CLOEXEC), count = 0;
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    for (char *word = text; word < text + size && count < 31; word += strlen(word) + 1)
        words[count++] = word;
    if (count == 0)
        return 100;
    execv(words[0], words);
    return 111;
}
