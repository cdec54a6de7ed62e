CALL doorward.end_user('{{name}}');
