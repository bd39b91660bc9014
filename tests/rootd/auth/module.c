/* A PAM module that misbehaves as its argument says, for the tests of rootd/auth/pam.py. Declared by hand, so that
 * no header package is needed: pam(3), pam_sm_authenticate(3). */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct message { int style; const char *text; };
struct response { char *text; int code; };
struct conv { int (*converse)(int, const struct message **, struct response **, void *); void *data; };
int pam_set_item(void *handle, int item, const void *value);
int pam_get_item(const void *handle, int item, const void **value);
int pam_fail_delay(void *handle, unsigned microseconds);

enum { OK = 0, AUTH_ERR = 7, CONV_ERR = 19, USER = 2, TTY = 3, RHOST = 4, CONV = 5, ECHO_OFF = 1, ECHO_ON = 2, INFO = 4 };

static int ask(void *handle, int count, const int *styles, const char *expected)
{
    const struct conv *conv;
    struct message messages[4];
    const struct message *pointers[4];
    struct response *answers = NULL;
    int result = AUTH_ERR;
    if (pam_get_item(handle, CONV, (const void **)&conv) != OK)
        return CONV_ERR;
    for (int i = 0; i < count; i++) {
        messages[i].style = styles[i];
        messages[i].text = "tell me: ";
        pointers[i] = &messages[i];
    }
    int code = conv->converse(count, pointers, &answers, conv->data);
    if (code != OK)
        return code;
    for (int i = 0; i < count; i++) {
        if (answers[i].text && strcmp(answers[i].text, expected) == 0)
            result = OK;
        free(answers[i].text);
    }
    free(answers);
    return result;
}

int pam_sm_authenticate(void *handle, int flags, int argc, const char **argv)
{
    const char *how = argc > 0 ? argv[0] : "", *word = argc > 1 ? argv[1] : "";
    const void *item = NULL;
    if (!strcmp(how, "crash"))
        abort();
    if (!strcmp(how, "hang"))
        for (;;) pause();
    if (!strcmp(how, "leave"))
        _exit(0);
    if (!strcmp(how, "become"))
        return pam_set_item(handle, USER, word);
    if (!strcmp(how, "delay")) {
        pam_fail_delay(handle, 5000000);
        return AUTH_ERR;
    }
    if (!strcmp(how, "flags"))
        return flags == (0x8000 | 0x1) ? OK : AUTH_ERR;
    if (!strcmp(how, "rhost") || !strcmp(how, "tty")) {
        pam_get_item(handle, how[0] == 'r' ? RHOST : TTY, &item);
        return strcmp(item ? (const char *)item : "", word) ? AUTH_ERR : OK;
    }
    if (!strcmp(how, "once"))
        return ask(handle, 1, (int[]){ECHO_OFF}, word);
    if (!strcmp(how, "told"))
        return ask(handle, 3, (int[]){INFO, INFO, ECHO_OFF}, word);
    if (!strcmp(how, "twice"))
        return ask(handle, 1, (int[]){ECHO_OFF}, word) == OK ? ask(handle, 1, (int[]){ECHO_OFF}, word) : AUTH_ERR;
    if (!strcmp(how, "together"))
        return ask(handle, 2, (int[]){ECHO_OFF, ECHO_OFF}, word);
    if (!strcmp(how, "echo"))
        return ask(handle, 1, (int[]){ECHO_ON}, word);
    if (!strcmp(how, "code"))
        return atoi(word);
    return OK;
}

int pam_sm_setcred(void *handle, int flags, int argc, const char **argv)
{
    return OK;
}

int pam_sm_acct_mgmt(void *handle, int flags, int argc, const char **argv)
{
    return argc > 1 && !strcmp(argv[0], "code") ? atoi(argv[1]) : OK;
}
