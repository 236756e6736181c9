;;; nightschool.el --- nightschool in Emacs, through eglot  -*- lexical-binding: t; -*-

;; Put it on the `load-path', and in init.el:
;;   (require 'nightschool)
;;   (add-hook 'prog-mode-hook #'eglot-ensure)
;; M-x nightschool-ask asks about the file (or the region); the answer streams into a buffer.
;; The code actions are in `eglot-code-actions'.  Emacs runs one server a major mode: name here
;; the modes that nightschool shall serve.

;;; Code:
(require 'eglot)

(defgroup nightschool nil "A coding assistant on your own machines." :group 'tools)
(defcustom nightschool-command '("nightschool" "lsp") "The language server and its arguments." :type '(repeat string))
(defcustom nightschool-modes '(python-mode js-mode c-mode c++-mode sh-mode emacs-lisp-mode)
  "The major modes that nightschool serves." :type '(repeat symbol))

(dolist (mode nightschool-modes)
  (add-to-list 'eglot-server-programs (cons mode nightschool-command)))

(defvar nightschool--streams (make-hash-table :test #'equal) "Partial result token -> function of a value.")

(cl-defmethod eglot-handle-notification :around (server (method (eql $/progress)) &rest rest &key token value &allow-other-keys)
  "Show the pieces of an answer; leave every other progress to eglot."
  (let ((show (gethash token nightschool--streams)))
    (if show (funcall show value) (apply #'cl-call-next-method server method rest))))

;; eglot 1.9 knows no $/progress of its own: without this it warns at every one.
(unless (cl-find-method #'eglot-handle-notification nil '(t (eql $/progress)))
  (cl-defmethod eglot-handle-notification (_server (_method (eql $/progress)) &key &allow-other-keys) "Nothing to show." nil))

(defun nightschool--range ()
  "The region as a range, or nil."
  (when (use-region-p)
    (list :start (eglot--pos-to-lsp-position (region-beginning)) :end (eglot--pos-to-lsp-position (region-end)))))

(defun nightschool-ask (question)
  "Ask QUESTION about this file, or the region; the answer streams into a buffer, which is returned."
  (interactive "sAsk nightschool: ")
  (let* ((server (or (eglot-current-server) (user-error "Start eglot in this buffer first")))
         (token (format "nightschool-%s" (random t)))
         (range (nightschool--range))
         (params `(:question ,question :partialResultToken ,token :textDocument ,(eglot--TextDocumentIdentifier)
                             ,@(and range (list :range range))))
         (answer (get-buffer-create "*nightschool*")))
    (with-current-buffer answer
      (erase-buffer)
      (when (fboundp 'markdown-mode) (funcall 'markdown-mode))
      (insert "# " question "\n\n"))
    (puthash token (lambda (value) (nightschool--add answer (plist-get value :text))) nightschool--streams)
    (jsonrpc-async-request
     server :nightschool/ask params :timeout 600
     :success-fn (lambda (result)
                   (remhash token nightschool--streams)
                   (nightschool--add answer (nightschool--sources result)))
     :error-fn (lambda (err)
                 (remhash token nightschool--streams)
                 (nightschool--add answer (format "\n\n> %s" (plist-get err :message)))))
    (display-buffer answer)
    answer))

(defun nightschool--add (buffer text)
  "Add TEXT at the end of BUFFER."
  (when (buffer-live-p buffer)
    (with-current-buffer buffer
      (save-excursion (goto-char (point-max)) (insert text)))))

(defun nightschool--sources (result)
  "The citations of RESULT, one a line, as `grep-mode' and `ffap' understand them."
  (concat "\n"
          (mapconcat (lambda (citation)
                       (format "\n[%d] %s:%d" (plist-get citation :index) (plist-get citation :path) (plist-get citation :startLine)))
                     (plist-get result :citations) "")
          "\n"))

(provide 'nightschool)
;;; nightschool.el ends here
