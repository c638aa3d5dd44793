//! A last word on SIGBUS: the host never touches mapped pages itself, so none is expected.
#![allow(unsafe_code, reason = "a signal handler")]

/// From now on a SIGBUS ends the process with one line on stderr and status 1.
#[cfg(unix)]
pub fn explain_sigbus() {
    extern "C" fn explain(_: libc::c_int) {
        const LINE: &[u8] = b"doppler-host: a model file was cut or its disk taken away while it was read; reload the model\n";
        // SAFETY: both are async-signal-safe, and the line lives for ever.
        unsafe {
            libc::write(libc::STDERR_FILENO, LINE.as_ptr().cast(), LINE.len());
            libc::_exit(1);
        }
    }
    // SAFETY: the handler calls nothing that is not async-signal-safe.
    unsafe { libc::signal(libc::SIGBUS, explain as extern "C" fn(libc::c_int) as libc::sighandler_t) };
}

/// There is no such signal.
#[cfg(not(unix))]
pub fn explain_sigbus() {}
