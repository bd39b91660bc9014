<?php
error_log('php: asked');
header('Content-Type: text/plain');
echo 'php-fpm, process ', getmypid(), "\n";
